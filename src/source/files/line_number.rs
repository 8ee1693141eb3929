//! Counts the lines of a text, whatever ends them: LF, CRLF, or CR alone.
//!
//! A CR alone ends a line if it ends a record, and everywhere in a text in which no LF was seen yet. Inside quotes,
//! in a text whose lines end with LF, it is an ordinary character, as it is in editors.

use memchr::memchr2_iter;

/// Computes line numbers from the text seen so far.
#[derive(Debug, Default)]
pub(super) struct LineNumber {
    /// How many line ends were seen.
    ends: u64,
    /// Set if the last byte was a CR, which may be half of a CRLF: whether that CR ended a record.
    behind_cr: Option<bool>,
    met_lf: bool,
}

impl LineNumber {
    /// Processes text, whose last byte may end a record. Returns the number of the line on which the text begins.
    pub fn observe(&mut self, text: &[u8], ends_record: bool) -> u64 {
        if text.first().is_some_and(|first| *first != b'\n') {
            self.end_cr();
        }
        let number = self.ends + 1;
        let mut next = 0;
        for at in memchr2_iter(b'\n', b'\r', text) {
            if at > next || text[at] == b'\r' {
                self.end_cr();
            }
            match text[at] {
                b'\n' => {
                    (self.behind_cr, self.met_lf) = (None, true);
                    self.ends += 1;
                }
                _ => self.behind_cr = Some(ends_record && at + 1 == text.len()),
            }
            next = at + 1;
        }
        if next < text.len() {
            self.end_cr();
        }
        number
    }

    /// The number of the next line, if the text seen so far ended a line.
    pub fn next(&self) -> u64 {
        let is_end = |ends_record| ends_record || !self.met_lf;
        self.ends + 1 + u64::from(self.behind_cr.is_some_and(is_end))
    }

    /// Counts a pending CR as a line end where it is one, because the next byte is not LF.
    fn end_cr(&mut self) {
        if let Some(ends_record) = self.behind_cr.take() {
            self.ends += u64::from(ends_record || !self.met_lf);
        }
    }
}
