use super::Questions;

impl Questions {
    /// The subscribers that are plugged in, in the order they are in everywhere.
    #[must_use]
    pub fn subscribers(&self) -> Vec<&'static str> {
        let all = kassa_subscribers::all().into_iter().map(|entry| entry.name);
        all.filter(|name| self.books.documents.contains_key(name)).collect()
    }
}
