//! `digested`: keeps the digest of a table while its rows pass by.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use timely::dataflow::{StreamVec, operators::Inspect};
use whisperer_schemas::{Digest, Row, TableSchema, row_hash};

/// Digests on streams of rows.
pub trait Digested {
    /// Adds every row that passes to `digest`. The digests of all workers add up to that of the table.
    ///
    /// ```
    /// use std::{cell::RefCell, rc::Rc, sync::Arc};
    /// use timely::dataflow::operators::ToStream;
    /// use whisperer_operators::digested::Digested;
    /// use whisperer_schemas::{Digest, Epoch, Row, TableSchema, Value, row_hash};
    ///
    /// let mut table = TableSchema::dead_letters();
    /// table.columns.truncate(1);
    /// let row = |reason: &str| Row { values: vec![Value::text(reason)], epoch: Epoch(0), position: None };
    /// let rows = [row("schema"), row("future")];
    /// let shared = timely::execute_directly(move |worker| {
    ///     let digest = Rc::new(RefCell::new(Digest::default()));
    ///     let table = Arc::new(table);
    ///     worker.dataflow(|scope| {
    ///         rows.clone().to_stream(scope).digested(table.clone(), digest.clone());
    ///     });
    ///     while worker.step() {}
    ///     let mut expected = Digest::default();
    ///     rows.iter().for_each(|row| expected.update(row_hash(&table, &row.values), 1));
    ///     (*digest.borrow(), expected)
    /// });
    /// assert_eq!(shared.0, shared.1);
    /// ```
    fn digested(self, table: Arc<TableSchema>, digest: Rc<RefCell<Digest>>) -> Self;
}

impl Digested for StreamVec<'_, u64, Row> {
    fn digested(self, table: Arc<TableSchema>, digest: Rc<RefCell<Digest>>) -> Self {
        self.inspect(move |row| digest.borrow_mut().update(row_hash(&table, &row.values), 1))
    }
}
