//! Texts that a worker's states refer to by number: applications, and the values of `last` and `first`.

use compact_str::CompactString;
use hashbrown::HashMap;

/// Texts, numbered from 0 in the order in which they came; the numbers never leave the worker.
#[derive(Debug, Default)]
pub struct Interner {
    texts: Vec<CompactString>,
    numbers: HashMap<CompactString, u32>,
}

impl Interner {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).expect("memory ends before four billion texts do");
        self.texts.push(CompactString::new(text));
        self.numbers.insert(CompactString::new(text), number);
        number
    }

    /// The text of a number.
    ///
    /// # Panics
    /// Where the number is not from this interner.
    #[must_use]
    pub fn get(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    /// Bytes that the texts take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let long: usize = self.texts.iter().filter(|text| text.is_heap_allocated()).map(|text| 2 * text.len()).sum();
        self.texts.capacity() * size_of::<CompactString>() + self.numbers.allocation_size() + long
    }
}
