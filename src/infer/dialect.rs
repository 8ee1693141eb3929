//! Infers the dialect of a text file from its beginning.

use crate::decode::csv_fields;
use crate::definition::TextDialect;
use crate::repr::Charset;
use crate::source::{SplitError, TextRecords, declared_delimiter};

/// The number of records that are examined.
const RECORDS: usize = 200;

/// Possible delimiters, the more usual ones first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// The most lines before a header that are skipped.
const TITLES: usize = 30;

/// Whether a text begins with a byte order mark, which names its encoding.
pub(super) fn has_mark(head: &[u8]) -> bool {
    let marks = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"];
    marks.iter().any(|mark| head.starts_with(mark))
}

/// The encoding of a text; with a byte order mark the default, because no setting is needed.
pub(super) fn charset(head: &[u8]) -> Charset {
    let marked = has_mark(head);
    match std::str::from_utf8(head) {
        _ if marked => Charset::Utf8,
        _ if head.contains(&0) => Charset::Utf16,
        Ok(_) => Charset::Utf8,
        // The sample may end within a character.
        Err(error) if error.error_len().is_none() => Charset::Utf8,
        Err(_) if head.iter().any(|byte| [0x81, 0x8d, 0x8f, 0x90, 0x9d].contains(byte)) => Charset::Latin1,
        Err(_) => Charset::Windows1252,
    }
}

/// The dialect of a CSV file that begins with `sample`. If the file's first line names its delimiter, that line is
/// part of the data as long as no other lines are skipped, so the dialect is that of a file without such a line.
pub(super) fn csv(sample: &str, charset: Charset) -> TextDialect {
    let Some(delimiter) = declared_delimiter(sample.as_bytes()) else {
        return behind_told(sample, charset, &DELIMITERS);
    };
    let dialect = behind_told(behind(sample, 1), charset, &[delimiter]);
    let skip_lines = match dialect.skip_lines {
        0 => 0,
        titles => titles + 1, // The line that names the delimiter is one of the lines to skip.
    };
    TextDialect { skip_lines, ..dialect }
}

/// The dialect of a text without such a line, with one of these delimiters.
fn behind_told(sample: &str, charset: Charset, delimiters: &[u8]) -> TextDialect {
    let usual = TextDialect {
        charset,
        ..TextDialect::default()
    };
    let comment = sample
        .lines()
        .next()
        .is_some_and(|line| line.starts_with('#'))
        .then_some(b'#');
    let quotings = [
        (Some(b'"'), None),
        (Some(b'"'), Some(b'\\')),
        (Some(b'\''), None),
        (None, None),
    ];
    let mut best: Option<(DialectFit, TextDialect)> = None;
    for (quote, escape) in quotings {
        if quote == Some(b'\'') && !sample.contains(",'") && !sample.contains(";'") && !sample.starts_with('\'') {
            continue;
        }
        for delimiter in delimiters.iter().copied() {
            let untrimmed = TextDialect {
                delimiter,
                quote,
                escape,
                comment,
                ..usual
            };
            // A quote after blanks may open a field, or be part of a text.
            let trims = has_blanks_before_quotes(sample, &untrimmed);
            for trim in [true, false].into_iter().filter(|trim| trims || !trim) {
                let candidate = TextDialect { trim, ..untrimmed };
                let fit = fit(sample, &candidate);
                if best.as_ref().is_none_or(|(least, _)| fit.is_better_than(least)) {
                    best = Some((fit, candidate));
                }
            }
        }
    }
    let Some((fit, mut dialect)) = best else { return usual };
    dialect.skip_lines = titles(sample, &dialect, fit.width);
    let mut lines = behind(sample, dialect.skip_lines);
    let header = first_record(lines, &dialect);
    lines = header.as_deref().unwrap_or_default();
    let names = csv_fields(lines, &dialect).unwrap_or_default();
    dialect.trim |= names.iter().any(|name| name.trim() != name);
    dialect.header = is_header(&names);
    dialect
}

/// How well a dialect fits the records.
#[derive(Clone, Copy, Debug)]
struct DialectFit {
    /// The most frequent number of fields.
    width: usize,
    /// How many of a thousand records have that number.
    share: usize,
}

impl DialectFit {
    /// Compares with an earlier, more usual candidate: the later one must be clearly better.
    fn is_better_than(self, other: &DialectFit) -> bool {
        let rank = |fit: &DialectFit| (fit.width > 1, fit.share);
        let ((wide, share), (other_wide, other_share)) = (rank(&self), rank(other));
        match (wide, other_wide) {
            (true, false) => share >= 600,
            (false, true) => other_share < 600,
            _ => share >= other_share + 50 || share + 50 >= other_share && share >= 900 && self.width > other.width * 2,
        }
    }
}

/// Whether fields have quotes after blanks, which open the field only if blanks are trimmed.
fn has_blanks_before_quotes(sample: &str, dialect: &TextDialect) -> bool {
    let Some(quote) = dialect.quote.map(char::from) else {
        return false;
    };
    let is_behind_blanks = |field: &String| field.starts_with([' ', '\t']) && field.trim_start().starts_with(quote);
    let mut records = TextRecords::new(sample.as_bytes(), Some(*dialect), sample.len().max(1));
    for _ in 0..RECORDS {
        let Ok(Some(record)) = records.next() else { break };
        let fields = csv_fields(&String::from_utf8_lossy(record.bytes), dialect);
        if fields.is_ok_and(|fields| fields.iter().any(is_behind_blanks)) {
            return true;
        }
    }
    false
}

fn fit(sample: &str, dialect: &TextDialect) -> DialectFit {
    let mut records = TextRecords::new(sample.as_bytes(), Some(*dialect), sample.len().max(1));
    let mut widths: std::collections::BTreeMap<usize, usize> = Default::default();
    let mut count = 0;
    for _ in 0..RECORDS {
        match records.next() {
            Ok(Some(record)) => {
                count += 1;
                let text = String::from_utf8_lossy(record.bytes);
                if let Ok(fields) = csv_fields(&text, dialect) {
                    *widths.entry(fields.len()).or_default() += 1;
                }
            }
            // The sample may end within quotes.
            Ok(None) | Err(SplitError::OpenQuote(_)) => break,
            Err(_) => break,
        }
    }
    let (width, most) = widths.into_iter().max_by_key(|(_, count)| *count).unwrap_or((0, 0));
    DialectFit {
        width,
        share: most * 1000 / count.max(1),
    }
}

/// The number of lines before the header, which is the first line of the usual width.
fn titles(sample: &str, dialect: &TextDialect, width: usize) -> u64 {
    let fitting = |text: &str| csv_fields(text, dialect).ok().filter(|fields| fields.len() == width);
    let lines = sample.lines().take(TITLES).enumerate();
    let lines = lines.filter_map(|(n, line)| Some((n as u64, fitting(line).filter(|_| !line.is_empty())?)));
    let lines: Vec<(u64, Vec<String>)> = lines.collect();
    // A header may contain line breaks.
    let record = first_record(sample, dialect).and_then(|record| fitting(&record));
    let Some((first, fields)) = record.map(|fields| (0, fields)).or_else(|| lines.first().cloned()) else {
        return 0;
    };
    if !is_padded(&fields) {
        return first;
    }
    let full = lines.iter().find(|(n, fields)| *n > first && !is_padded(fields));
    full.filter(|(_, fields)| is_header(fields)).map_or(first, |(n, _)| *n)
}

/// Detects a line before the data that looks like a header, but has one name too many or too few: its line number, its
/// number of names, and the number of fields in the data.
pub(super) fn odd_header(sample: &str, dialect: &TextDialect) -> Option<(u64, usize, usize)> {
    let line = dialect.skip_lines.checked_sub(1).filter(|_| !dialect.header)?;
    let names = csv_fields(behind(sample, line).lines().next()?, dialect).ok()?;
    let record = first_record(behind(sample, line + 1), dialect)?;
    let fields = csv_fields(&record, dialect).ok()?.len();
    (names.len().abs_diff(fields) == 1 && names.len() > 1 && is_header(&names)).then_some((
        line + 1,
        names.len(),
        fields,
    ))
}

/// Whether a record may be a title, or a line below it: spreadsheets pad every line with the delimiters of the widest
/// one.
fn is_padded(fields: &[String]) -> bool {
    fields.len() > 2 && fields[1..].iter().all(|field| field.trim().is_empty())
}

fn behind(sample: &str, lines: u64) -> &str {
    (0..lines).fold(sample, |rest, _| rest.split_once('\n').map_or("", |(_, rest)| rest))
}

fn first_record(text: &str, dialect: &TextDialect) -> Option<String> {
    let mut records = TextRecords::new(text.as_bytes(), Some(*dialect), text.len().max(1));
    let record = records.next().ok()??;
    Some(String::from_utf8_lossy(record.bytes).into_owned())
}

/// Whether the fields are names rather than data.
fn is_header(fields: &[String]) -> bool {
    let is_data = |field: &String| {
        let text = field.trim().trim_start_matches(['-', '+', '$', '€', '(']);
        text.starts_with(|c: char| c.is_ascii_digit())
    };
    let named = fields.iter().filter(|field| !field.trim().is_empty()).count();
    let data = fields.iter().filter(|field| is_data(field)).count();
    named > 0 && data * 2 < named && !fields.first().is_some_and(is_data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sample: &str) -> String {
        let dialect = csv(sample, Charset::Utf8);
        format!(
            "{} {} {} {} {}",
            char::from(dialect.delimiter).escape_default(),
            dialect.skip_lines,
            dialect.header,
            dialect
                .quote
                .map_or("-".to_string(), |quote| char::from(quote).to_string()),
            dialect.escape.is_some()
        )
    }

    #[test]
    fn blanks_before_quotes_are_trimmed() {
        for (sample, expected, trim) in [
            ("k,x\n0, \"a, b\"\n1, \"c, d\"\n", ", 0 true \" false", true),
            ("k,x\n0, \"a\"\n1, \"c\"\n", ", 0 true \" false", true),
            ("k,x\n0,\"a, \"\"b\"\"\"\n1,\"c, d\"\n", ", 0 true \" false", false),
            ("k,x\n0, a\n1, c\n", ", 0 true \" false", false),
            ("k,x\n0, \"a\": 1\n1, \"c\": 2\n", ", 0 true \" false", false),
        ] {
            assert_eq!(of(sample), expected, "{sample}");
            assert_eq!(csv(sample, Charset::Utf8).trim, trim, "{sample}");
        }
    }

    #[test]
    fn a_header_of_another_width_than_its_data_is_known() {
        for (sample, odd) in [
            ("a,b,c\n1,2,3,\n4,5,6,\n7,8,9,\n", Some((1, 3, 4))),
            ("\na,b,c\n1,2\n4,5\n7,8\n", Some((2, 3, 2))),
            ("Report\n1,2\n4,5\n7,8\n", None),
            ("a,b\n1,2\n", None),
        ] {
            assert_eq!(odd_header(sample, &csv(sample, Charset::Utf8)), odd, "{sample}");
        }
    }

    #[test]
    fn dialects_are_told_by_what_fits_most_records() {
        for (sample, expected) in [
            ("k,x\na,1\nb,2\n", ", 0 true \" false"),
            ("k;x\n\"a;1\";1,5\nb;2,5\n", "; 0 true \" false"),
            ("k\tx\na\t1\n", "\\t 0 true \" false"),
            ("a,1\nb,2\n", ", 0 false \" false"),
            (
                "Report, of May\nmade by us\n\nk;x;y\na;1;2\nb;2;3\nc;3;3\nd;4;3\ne;5;3\n",
                "; 3 true \" false",
            ),
            ("sep=;\nk;x\na;1\n", "; 0 true \" false"),
            ("sep=;\nReport\n\nk;x\na;1\nb;2\nc;2\n", "; 3 true \" false"),
            ("sep=|\r\n a | b \r\n1|2\r\n", "| 0 true \" false"),
            ("Report,,\n,,\nid,name,x\n1,a,2\n2,b,3\n", ", 2 true \" false"),
            ("k,,\n1,a,2\n2,b,3\n", ", 0 true \" false"),
            (",x\nrow,1\n", ", 0 true \" false"),
            ("name\nAnn\nBob\n", ", 0 true \" false"),
            ("k,x\n\"a\\\"b\",1\n\"c\\\",d\",2\n", ", 0 true \" true"),
            ("\"k\",\"x\"\n\"a\nb\",\"1\"\n", ", 0 true \" false"),
        ] {
            assert_eq!(of(sample), expected, "{sample}");
        }
    }
}
