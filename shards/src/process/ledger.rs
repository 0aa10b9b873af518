//! Writes lines of the ledger: nothing leaves in silence, and nothing is written when nothing left.

use crate::panel::{Ledger, LedgerEntry};

/// Adds one line, unless `names` is empty.
pub(super) fn record(ledger: &mut Ledger, what: &str, library_id: Option<&str>, reason: String, names: Vec<String>) {
    if names.is_empty() {
        return;
    }
    tracing::info!(what, library_id, reason, n = names.len(), "dropped");
    ledger.entries.push(LedgerEntry {
        what: what.to_string(),
        library_id: library_id.map(str::to_string),
        reason,
        n: names.len() as u64,
        names,
    });
}

/// Adds what the reader of a section noted (`what` = `input`; the number is in the words).
pub(super) fn note(ledger: &mut Ledger, library_id: &str, note: &str) {
    ledger.entries.push(LedgerEntry {
        what: "input".to_string(),
        library_id: Some(library_id.to_string()),
        reason: note.to_string(),
        n: 0,
        names: Vec::new(),
    });
}
