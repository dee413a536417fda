//! The strings in cargo's JSON messages. This program has no dependencies, so it has no parser of all of JSON.

use std::str::Chars;

/// The string literals in a line of JSON between `start` and the first `end` after it that is not in a literal.
pub(crate) fn strings(json: &str, start: &str, end: char) -> Vec<String> {
    let mut rest = json.split_once(start).map_or("", |(_, rest)| rest).chars();
    let mut found = Vec::new();
    while rest.find(|&character| character == '"' || character == end) == Some('"') {
        let Some(text) = literal(&mut rest) else { break };
        found.push(text);
    }
    found
}

/// The text of a literal whose first quotation mark has been read. `None` if it has no end or is no text.
fn literal(rest: &mut Chars) -> Option<String> {
    // JSON writes a character as one or two units of UTF-16.
    let (mut units, mut buffer) = (Vec::new(), [0; 2]);
    loop {
        let character = match rest.next()? {
            '"' => return String::from_utf16(&units).ok(),
            '\\' => match rest.next()? {
                'u' => {
                    units.push(u16::from_str_radix(rest.as_str().get(..4)?, 16).ok()?);
                    rest.nth(3);
                    continue;
                }
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                itself => itself,
            },
            character => character,
        };
        units.extend_from_slice(character.encode_utf16(&mut buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_punctuation_and_escapes_are_read() {
        let line = concat!(
            r#"{"target":{"kind":["lib"],"name":"a","src_path":"/u/a,b]}/\"x\"/src/lib.rs"},"#,
            r#""filenames":["/u/a,b]/1","C:\\u\\2"],"fresh":"no"}"#
        );
        assert_eq!(strings(line, r#""src_path":"#, ',')[0], "/u/a,b]}/\"x\"/src/lib.rs");
        assert_eq!(strings(line, r#""filenames":["#, ']'), ["/u/a,b]/1", r"C:\u\2"]);
        let target = strings(line, r#""target":{"#, '}');
        assert_eq!(target, ["kind", "lib", "name", "a", "src_path", "/u/a,b]}/\"x\"/src/lib.rs"]);
        assert_eq!(strings(r#""a":[]"#, r#""a":["#, ']'), [""; 0]);
        assert_eq!(strings(line, r#""linked_paths":["#, ']'), [""; 0]);
    }

    #[test]
    fn escapes_are_characters_of_unicode() {
        let literals = r#"["ü","\u00fc\u0009\n\/","\uD83D\uDE00 😀"]"#;
        assert_eq!(strings(literals, "[", ']'), ["ü", "ü\t\n/", "😀 😀"]);
        for damaged in [r#"["a"#, r#"["\"#, r#"["\u00"#, r#"["\u00fü"]"#, r#"["\uD83D"]"#] {
            assert_eq!(strings(damaged, "[", ']'), [""; 0], "{damaged}");
        }
    }
}
