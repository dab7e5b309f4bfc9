//! Rows of the tables of views, from answers.

use compact_str::CompactString;
use hashbrown::HashMap;
use whisperer_schemas::{Epoch, Micros, Row, Value};

use super::{Answer, NONE};
use crate::job::{CompiledJob, Word};

/// The texts that stand behind the hashes in groups.
pub type Texts = HashMap<u64, CompactString>;

/// A row of a view that is what it is since an epoch; the row was added `diff` times (taken away where that is negative) until an
/// epoch, when the global watermark stood at `as_of`.
#[must_use]
pub fn row(
    job: &CompiledJob,
    texts: &Texts,
    answer: &Answer,
    (epoch, as_of, since, diff): (Epoch, Option<Micros>, u64, i64),
) -> Row {
    let view = &job.views.each[usize::from(answer.view)];
    let (mut words, mut own) = (answer.words.iter(), answer.texts.iter());
    let mut values = Vec::with_capacity(view.table.columns.len());
    for word in &view.words {
        values.push(match word {
            Word::OwnText => own.next().map_or(Value::Null, Value::text),
            Word::OptionalText => match words.next() {
                Some(word) if *word != NONE => own.next().map_or(Value::Null, Value::text),
                _ => Value::Null,
            },
            word => words.next().map_or(Value::Null, |bits| value(word, *bits, texts)),
        });
    }
    values.push(Value::Int(epoch.0 as i64));
    values.push(as_of.map_or(Value::Null, Value::Time));
    values.push(Value::Int(since as i64));
    values.push(Value::Int(diff));
    Row { values, epoch, position: None }
}

fn value(word: &Word, bits: u64, texts: &Texts) -> Value {
    match word {
        Word::Count => Value::Int(bits as i64),
        Word::Number => Value::number(f64::from_bits(bits)),
        Word::Time => Value::Time(bits as Micros),
        _ if bits == NONE => Value::Null,
        Word::Choice(names) => names.get(bits as usize).map_or(Value::Null, Value::text),
        Word::Text => texts.get(&bits).map_or(Value::Null, Value::text),
        Word::Flag => Value::Bool(bits == 1),
        Word::OwnText | Word::OptionalText => Value::Null,
    }
}
