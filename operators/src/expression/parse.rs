//! From text to syntax: `sqlparser`, with a dialect that adds nothing to SQL, and limits.

use std::ops::Range;

use sqlparser::{
    ast,
    dialect::Dialect,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};

use super::place::Place;

/// Bounds what recursion over the syntax can be driven to by chains such as `a + b + c`, which the parser builds in a
/// loop. Far above what a person writes; a list of 2,000 constants fits.
const TOKENS_MAX: usize = 4096;

/// Parentheses, `not` and calls inside one another. The parser needs a few steps for some levels.
const PARSER_DEPTH_MAX: usize = 128;

/// What is wrong, and where in the text.
pub(super) struct SyntaxError {
    pub(super) bytes: Range<usize>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl SyntaxError {
    fn new(bytes: Range<usize>, message: impl Into<String>) -> SyntaxError {
        SyntaxError { bytes, message: message.into(), hint: None }
    }
}

/// Parses all of the text as one expression.
pub(super) fn parse(text: &str, place: &Place<'_>) -> Result<ast::Expr, SyntaxError> {
    let tokens = tokens(text, place)?;
    let mut parser = Parser::new(&Plain).with_recursion_limit(PARSER_DEPTH_MAX).with_tokens_with_locations(tokens);
    let syntax = parser.parse_expr().map_err(|error| syntax_error(error, place))?;
    match parser.peek_token_ref() {
        TokenWithSpan { token: Token::EOF, .. } => Ok(syntax),
        rest => Err(trailing(rest, place)),
    }
}

fn tokens(text: &str, place: &Place<'_>) -> Result<Vec<TokenWithSpan>, SyntaxError> {
    let tokens = Tokenizer::new(&Plain, text).tokenize_with_location().map_err(|error| {
        let start = place.byte(error.location).unwrap_or(0);
        SyntaxError::new(start..place.whole().end.max(start), uncapitalized(&error.message))
    })?;
    let words = tokens.iter().filter(|found| !matches!(found.token, Token::Whitespace(_))).count();
    if words == 0 {
        return Err(SyntaxError::new(place.whole(), "an expression is missing"));
    }
    if words > TOKENS_MAX {
        let message = format!("the expression is too long: it has {words} words and signs, {TOKENS_MAX} are allowed");
        return Err(SyntaxError::new(place.whole(), message));
    }
    Ok(tokens)
}

fn trailing(rest: &TokenWithSpan, place: &Place<'_>) -> SyntaxError {
    let hint = match rest.token {
        Token::Overlap => Some("write `and`".to_owned()),
        Token::SemiColon => Some("an expression ends without a sign".to_owned()),
        _ => None,
    };
    let message = format!("unexpected `{}` after the expression", rest.token);
    SyntaxError { bytes: place.bytes(rest.span), message, hint }
}

fn syntax_error(error: ParserError, place: &Place<'_>) -> SyntaxError {
    match error {
        ParserError::RecursionLimitExceeded => too_deep(place),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (message, location) = split_location(&message);
            let bytes = match location.and_then(|location| place.byte(location)) {
                Some(start) => start..end_of_word(place, start),
                None => place.whole().end..place.whole().end,
            };
            SyntaxError::new(bytes, plain_words(message))
        }
    }
}

/// An expression whose parts are nested too deeply.
pub(super) fn too_deep(place: &Place<'_>) -> SyntaxError {
    let hint = Some("make a part of it a score of its own".to_owned());
    SyntaxError { bytes: place.whole(), message: "the expression is nested too deeply".to_owned(), hint }
}

/// The parser's errors end in ` at Line: 1, Column: 7`, and say nothing of the kind at the end of the text.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((before, location)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let numbers = location.split_once(", Column: ");
    let parsed = numbers.and_then(|(line, column)| Some(Location::new(line.parse().ok()?, column.parse().ok()?)));
    match parsed {
        Some(location) => (before, Some(location)),
        None => (message, None),
    }
}

fn plain_words(message: &str) -> String {
    let message = message.replacen("Expected: ", "expected ", 1);
    match message.rsplit_once(", found: ") {
        Some((expected, "EOF")) => format!("{expected}, found the end"),
        Some((expected, found)) => format!("{expected}, found `{found}`"),
        None => uncapitalized(&message),
    }
}

fn uncapitalized(message: &str) -> String {
    let mut characters = message.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

fn end_of_word(place: &Place<'_>, start: usize) -> usize {
    let rest = place.rest(start);
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let sign = rest.chars().next().map_or(0, char::len_utf8);
    start + word.max(sign)
}

/// SQL without the additions of any product, whose many forms would only make mistakes look like something else.
#[derive(Debug)]
struct Plain;

impl Dialect for Plain {
    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_'
    }
}
