//! What of SQL the language does not have, by name.

use sqlparser::ast::{BinaryOperator, Expr as Syntax};

/// What is not supported, with its verb, and what to write instead.
pub(super) fn unsupported(syntax: &Syntax) -> (String, Option<&'static str>) {
    match syntax {
        Syntax::BinaryOp { op, .. } => (format!("`{op}` is"), instead_of(op)),
        Syntax::UnaryOp { op, .. } => (format!("`{op}` is"), None),
        Syntax::ILike { .. } => ("`ilike` is".into(), Some("write `lower(x) like 'pattern'`")),
        Syntax::Like { .. } => ("`like any` and `escape` are".into(), None),
        Syntax::IsDistinctFrom(..) => ("`is distinct from` is".into(), None),
        Syntax::IsNotDistinctFrom(..) => ("`is not distinct from` is".into(), None),
        Syntax::Ceil { .. } | Syntax::Floor { .. } => ("`ceil` and `floor` with a second argument are".into(), None),
        Syntax::Function(call) => (format!("this form of `{}` is", call.name), None),
        _ => (kind(syntax).into(), None),
    }
}

fn instead_of(op: &BinaryOperator) -> Option<&'static str> {
    match op {
        BinaryOperator::StringConcat => Some("for one or the other condition, write `or`"),
        BinaryOperator::PGOverlap => Some("for both conditions, write `and`"),
        BinaryOperator::BitwiseXor => Some("a power is `pow(x, y)`"),
        BinaryOperator::Spaceship => Some("write `=`"),
        _ => None,
    }
}

fn kind(syntax: &Syntax) -> &'static str {
    match syntax {
        Syntax::Subquery(_) | Syntax::InSubquery { .. } | Syntax::Exists { .. } => "subqueries are",
        Syntax::Cast { .. } | Syntax::Convert { .. } => "casts are",
        Syntax::Interval(_) => "intervals are",
        Syntax::TypedString(_) => "dates, times and other literals with a type are",
        Syntax::AtTimeZone { .. } => "`at time zone` is",
        Syntax::Extract { .. } => "`extract` is",
        Syntax::Position { .. } => "`position` is",
        Syntax::Substring { .. } => "`substring` is",
        Syntax::Trim { .. } => "`trim` is",
        Syntax::Overlay { .. } => "`overlay` is",
        Syntax::Collate { .. } => "`collate` is",
        Syntax::AnyOp { .. } => "`any` is",
        Syntax::AllOp { .. } => "`all` is",
        Syntax::SimilarTo { .. } => "`similar to` is",
        Syntax::RLike { .. } => "regular expressions are",
        Syntax::IsNormalized { .. } => "`is normalized` is",
        Syntax::IsJson { .. } => "`is json` is",
        Syntax::InUnnest { .. } => "`unnest` is",
        Syntax::Array(_) => "arrays are",
        Syntax::CompoundFieldAccess { .. } | Syntax::JsonAccess { .. } => "access to elements with `[]` or `:` is",
        Syntax::Tuple(_) | Syntax::Struct { .. } => "rows of several values are",
        Syntax::Wildcard(_) | Syntax::QualifiedWildcard(..) => "`*` is",
        _ => "this is",
    }
}
