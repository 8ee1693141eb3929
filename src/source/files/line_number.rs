//! Counts the lines of a text, whatever ends them: LF, CRLF, or CR alone.
//!
//! A CR alone is the end of a line where it ends a record, and in a text in which no LF was met. Within the quotes of a text whose
//! lines end with LF it is a character as any, as it is to editors.

use memchr::memchr2_iter;

/// The number of a line, from what is before it.
#[derive(Debug, Default)]
pub(super) struct LineNumber {
    /// Ends of lines so far.
    ends: u64,
    /// The last byte was a CR, which may be half of a CRLF; whether it ended a record.
    behind_cr: Option<bool>,
    met_lf: bool,
}

impl LineNumber {
    /// Passes over text, whose last byte may end a record. Answers the number of the line that it begins on.
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

    /// The number of the line that comes next, where what was passed over ended a line.
    pub fn next(&self) -> u64 {
        let is_end = |ends_record| ends_record || !self.met_lf;
        self.ends + 1 + u64::from(self.behind_cr.is_some_and(is_end))
    }

    /// Another byte than LF came.
    fn end_cr(&mut self) {
        if let Some(ends_record) = self.behind_cr.take() {
            self.ends += u64::from(ends_record || !self.met_lf);
        }
    }
}
