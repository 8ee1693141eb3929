//! Functions of texts: case, character codes, parts, and texts that encode bytes.

use super::row::{RowArgument, RowFunction, RowResult, RowType, RowValue};

/// The functions that are computed row by row.
pub(super) fn functions() -> Vec<RowFunction> {
    use RowType::{Bytes, Text, Whole};
    const ONE: &[&[RowType]] = &[&[RowType::Text]];
    vec![
        RowFunction::new("upper", ONE, Text, |args| {
            let text = args[0].text();
            Ok(RowValue::Text(match text.is_ascii() {
                true => text.to_ascii_uppercase(),
                false => text.chars().map(upper).collect(),
            }))
        }),
        RowFunction::new("lower", ONE, Text, |args| {
            let text = args[0].text();
            Ok(RowValue::Text(match text.is_ascii() {
                true => text.to_ascii_lowercase(),
                false => text.chars().map(lower).collect(),
            }))
        }),
        RowFunction::new("initcap", ONE, Text, |args| {
            let mut within = false;
            let one = |c: char| {
                let made = if within { lower(c) } else { upper(c) };
                within = c.is_alphanumeric();
                made
            };
            Ok(RowValue::Text(args[0].text().chars().map(one).collect()))
        }),
        RowFunction::new("chr", &[&[Whole]], Text, |args| match args[0].whole() {
            0 => Err("a text holds no character 0".to_string()),
            code => match u32::try_from(code).ok().and_then(char::from_u32) {
                Some(c) => Ok(RowValue::Text(c.to_string())),
                None => Err(format!("there is no character {code}")),
            },
        }),
        RowFunction::new("split_part", &[&[Text, Text, Whole]], Text, part),
        RowFunction::new("encode", &[&[Bytes, Text], &[Text, Text]], Text, |args| {
            let bytes = match &args[0] {
                RowArgument::Text(text) => text.as_bytes(),
                given => given.bytes(),
            };
            match args[1].text().to_ascii_lowercase().as_str() {
                "hex" => Ok(RowValue::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
                "base64" => Ok(RowValue::Text(base64(bytes))),
                "escape" => Ok(RowValue::Text(escaped(bytes))),
                other => Err(no_encoding(other)),
            }
        }),
        RowFunction::new("decode", &[&[Text, Text]], Bytes, |args| {
            let text = args[0].text();
            let bytes = match args[1].text().to_ascii_lowercase().as_str() {
                "hex" => of_hex(text)?,
                "base64" => of_base64(text)?,
                "escape" => of_escaped(text)?,
                other => return Err(no_encoding(other)),
            };
            Ok(RowValue::Bytes(bytes))
        }),
        RowFunction::new("convert_to", &[&[Text, Text]], Bytes, |args| {
            check_utf_8(args[1].text())?;
            Ok(RowValue::Bytes(args[0].text().as_bytes().to_vec()))
        }),
        RowFunction::new("convert_from", &[&[Bytes, Text]], Text, |args| {
            check_utf_8(args[1].text())?;
            match std::str::from_utf8(args[0].bytes()) {
                Ok(text) if !text.contains('\0') => Ok(RowValue::Text(text.to_string())),
                _ => Err("the bytes are no text in UTF-8".to_string()),
            }
        }),
    ]
}

fn check_utf_8(encoding: &str) -> Result<(), String> {
    match encoding.to_ascii_lowercase().as_str() {
        "utf8" | "utf-8" => Ok(()),
        other => Err(format!("texts are in UTF8, and not in {other}")),
    }
}

fn no_encoding(name: &str) -> String {
    format!("{name:?} is none of \"hex\", \"base64\" and \"escape\"")
}

/// The upper case of a character if that is one character; `ß` stays as it is.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

fn lower(c: char) -> char {
    // In the only case with two characters (`İ`), the first one is the right one.
    c.to_lowercase().next().unwrap_or(c)
}

/// `split_part(text, by, n)`; a negative n counts from the end.
fn part(args: &[RowArgument<'_>]) -> RowResult {
    let (text, by, place) = (args[0].text(), args[1].text(), args[2].whole());
    if place == 0 {
        return Err("a part's place is 1 or more, or counted from the end -1 or less, and not 0".to_string());
    }
    let nth = usize::try_from(place.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let part = match (text.is_empty(), by.is_empty()) {
        (true, _) => None,
        (_, true) => (nth == 0).then_some(text),
        _ if place > 0 => text.split(by).nth(nth),
        // Parts are always split from the beginning, even if n counts from the end: it matters where separators
        // could overlap.
        _ => {
            let parts: Vec<&str> = text.split(by).collect();
            parts.len().checked_sub(nth + 1).map(|at| parts[at])
        }
    };
    Ok(RowValue::Text(part.unwrap_or_default().to_string()))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of a line of base64.
const LINE: usize = 76;

fn base64(bytes: &[u8]) -> String {
    let mut made = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for (n, three) in bytes.chunks(3).enumerate() {
        if n > 0 && n % (LINE / 4) == 0 {
            made.push('\n');
        }
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            made.push(match digit <= three.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    made
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

/// Decodes base64 as leniently as PostgreSQL: padding ends a group of four characters, and more groups may
/// follow it.
fn of_base64(text: &str) -> Result<Vec<u8>, String> {
    let (mut made, mut bits, mut digits, mut bytes) = (vec![], 0u32, 0, 3);
    for byte in text.bytes().filter(|byte| !is_blank(byte)) {
        let digit = match (byte, DIGITS.iter().position(|digit| *digit == byte)) {
            (_, Some(digit)) => digit as u32,
            (b'=', _) if bytes < 3 => 0,
            (b'=', _) if digits >= 2 => {
                bytes = digits - 1;
                0
            }
            _ => return Err("the text is no base64".to_string()),
        };
        bits = bits << 6 | digit;
        digits += 1;
        if digits == 4 {
            made.extend(&bits.to_be_bytes()[1..=bytes]);
            (bits, digits) = (0, 0);
        }
    }
    match digits {
        0 => Ok(made),
        _ => Err("the text is no base64: its end is missing".to_string()),
    }
}

fn of_hex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: u8| {
        let digit = char::from(byte).to_digit(16);
        digit
            .map(|digit| digit as u8)
            .ok_or("the text has a sign that is no hexadecimal digit")
    };
    let mut made = vec![];
    let mut bytes = text.bytes();
    while let Some(first) = bytes.next() {
        if is_blank(&first) {
            continue;
        }
        let second = bytes.next().ok_or("the text has an odd number of digits")?;
        made.push(digit(first)? << 4 | digit(second)?);
    }
    Ok(made)
}

fn escaped(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'\\' => "\\\\".to_string(),
        0 | 128.. => format!("\\{byte:03o}"),
        byte => char::from(*byte).to_string(),
    };
    bytes.iter().map(one).collect()
}

/// A backslash must be followed by three octal digits or by another backslash.
fn of_escaped(text: &str) -> Result<Vec<u8>, String> {
    let mut made = vec![];
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        if *first != b'\\' {
            made.push(*first);
            continue;
        }
        let octal = |n: usize, most: u8| rest.get(n).filter(|b| (b'0'..=most).contains(*b)).map(|b| b - b'0');
        match (rest.first(), octal(0, b'3'), octal(1, b'7'), octal(2, b'7')) {
            (Some(b'\\'), ..) => {
                made.push(b'\\');
                bytes = &rest[1..];
            }
            (_, Some(a), Some(b), Some(c)) => {
                made.push(a << 6 | b << 3 | c);
                bytes = &rest[3..];
            }
            _ => return Err("behind a backslash stands neither another one nor three octal digits".to_string()),
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cases_are_those_of_single_characters() {
        let text = |f: fn(char) -> char, text: &str| text.chars().map(f).collect::<String>();
        assert_eq!(text(upper, "straße ä\u{149}"), "STRAßE Ä\u{149}");
        assert_eq!(text(lower, "ΣΑΣ İ"), "σασ i");
    }

    #[test]
    fn what_is_no_code_is_told() {
        for text in ["YWJ", "Y", "=", "YWJj=", "a?", "Y==="] {
            assert!(of_base64(text).is_err(), "{text}");
        }
        assert_eq!(of_base64(" YW\nJj "), Ok(b"abc".to_vec()));
        assert_eq!(of_base64("YQ=="), Ok(b"a".to_vec()));
        assert!(of_hex("abc").is_err() && of_hex("zz").is_err());
        assert_eq!(of_escaped("a\\\\b\\377"), Ok(b"a\\b\xff".to_vec()));
        assert!(of_escaped("a\\b").is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(of_base64(&base64(&bytes)), Ok(bytes.clone()));
            prop_assert_eq!(of_escaped(&escaped(&bytes)), Ok(bytes.clone()));
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(of_hex(&hex), Ok(bytes));
        }
    }
}
