//! The size of texts in cells, and lines of text that fit a width. Widths are estimates: no font is read.

/// Least and greatest font size of texts in cells.
pub(super) const MIN_SIZE: usize = 10;
pub(super) const MAX_SIZE: usize = 20;
/// A size that is easy to read.
const EASY_SIZE: usize = 12;
/// Width of a character and height of a line, in font sizes. These are plotly's own estimates for texts in the cells of a
/// heat map; a character is a little narrower on average.
const CHARACTER: f64 = 0.65;
const LINE: f64 = 1.3;
/// Maximum number of lines in a cell.
const MAX_LINES: usize = 3;

/// Texts of cells, in the largest font in which nearly all of them fit.
pub(super) struct Fitted {
    /// Each text with line breaks, empty if it does not fit.
    pub(super) texts: Vec<String>,
    pub(super) size: usize,
}

/// The width of a text in characters; wide ones, such as Chinese ones and emoji, are two.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

/// Whether labels side by side need more than `width` pixels.
pub(super) fn is_crowded<'a>(labels: impl ExactSizeIterator<Item = &'a str>, size: usize, width: f64) -> bool {
    let n = labels.len().max(1) as f64;
    let longest = labels.map(|label| label.chars().count()).max().unwrap_or(0);
    longest as f64 * CHARACTER * size as f64 > width / n
}

/// Whether a character is about as wide as high.
pub(super) fn is_wide(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f000}'..='\u{3ffff}')
}

/// Fits texts into cells of this width and height in pixels, all in one size.
///
/// Texts that do not fit in a size that is easy to read are left out, unless they are most of them: then it is the smallest
/// size. Of the sizes in which the others fit, it is the one in which the fewest of them are broken into lines, and the
/// largest such size.
pub(super) fn fit(texts: &[String], cell: [f64; 2]) -> Fitted {
    let at = |size: usize| -> Vec<Option<String>> {
        let [columns, lines] = room(cell, size);
        texts.iter().map(|text| in_lines(text, columns, lines)).collect()
    };
    let n_left_out = |fitted: &[Option<String>]| fitted.iter().filter(|text| text.is_none()).count();
    let of = |fitted: Vec<Option<String>>, size| Fitted {
        texts: fitted.into_iter().map(Option::unwrap_or_default).collect(),
        size,
    };
    let easy = at(EASY_SIZE);
    let left_out = n_left_out(&easy);
    if 5 * left_out > texts.len() {
        return of(at(MIN_SIZE), MIN_SIZE);
    }
    let broken = |fitted: &[Option<String>]| fitted.iter().flatten().filter(|text| text.contains('\n')).count();
    let larger = (EASY_SIZE..=MAX_SIZE).rev().map(|size| (size, at(size)));
    let all_fit = larger.filter(|(_, fitted)| n_left_out(fitted) == left_out);
    let best = all_fit.min_by_key(|(_, fitted)| broken(fitted));
    best.map_or_else(|| of(easy, EASY_SIZE), |(size, fitted)| of(fitted, size))
}

/// The number of texts that fit into cells of this width and height in the smallest size.
pub(super) fn n_fitting(texts: &[String], cell: [f64; 2]) -> usize {
    let [columns, lines] = room(cell, MIN_SIZE);
    texts.iter().filter(|text| in_lines(text, columns, lines).is_some()).count()
}

/// Characters in a line, and lines.
fn room([width, height]: [f64; 2], size: usize) -> [usize; 2] {
    // plotly rounds the places of cells to whole pixels.
    let of = |pixels: f64, share: f64| (pixels.floor() / share / size as f64).floor() as usize;
    [of(width, CHARACTER), of(height, LINE).min(MAX_LINES)]
}

/// The text in as few lines as it needs, of about the same length; `None` if it does not fit.
fn in_lines(text: &str, columns: usize, lines: usize) -> Option<String> {
    let total = width(text);
    if total <= columns && lines > 0 {
        return Some(text.into());
    }
    let units = units(text);
    (2..=lines)
        .find_map(|lines| {
            let widths = total.div_ceil(lines)..=columns;
            widths.into_iter().find_map(|columns| broken(&units, columns).filter(|broken| broken.len() <= lines))
        })
        .map(|lines| lines.join("\n"))
}

/// Parts that are not broken: names such as `<nl>`, and single characters.
fn units(text: &str) -> Vec<&str> {
    let mut units = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let name = if c == '<' { rest.find('>').filter(|&end| (2..=8).contains(&end)) } else { None };
        let (unit, after) = rest.split_at(name.map_or(c.len_utf8(), |end| end + 1));
        units.push(unit);
        rest = after;
    }
    units
}

/// The units in lines of at most this width; `None` if one of them is wider.
fn broken(units: &[&str], columns: usize) -> Option<Vec<String>> {
    let mut lines = vec![String::new()];
    for unit in units {
        if width(unit) > columns {
            return None;
        }
        let last = lines.last_mut().expect("there is a first line");
        if width(last) + width(unit) > columns {
            lines.push((*unit).to_owned());
        } else {
            last.push_str(unit);
        }
    }
    Some(lines)
}

/// A text of at most this width; a longer one ends in `…`.
pub(super) fn shortened(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.into();
    }
    let mut shortened = String::new();
    for c in text.chars() {
        if width(&shortened) + if is_wide(c) { 2 } else { 1 } >= max {
            break;
        }
        shortened.push(c);
    }
    shortened + "…"
}

/// A sentence in lines of at most this many pixels, broken at spaces.
pub(super) fn paragraph(text: &str, pixels: f64, size: usize) -> Vec<String> {
    let columns = (pixels / (0.56 * size as f64)).floor().max(8.0) as usize;
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && width(&line) + 1 + width(word) > columns {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.into()).collect()
    }

    #[test]
    fn the_size_follows_the_cell() {
        let texts = owned(&["␣the", ".", "␣is"]);
        let size = |side: f64| fit(&texts, [side, side]).size;
        assert_eq!([size(100.0), size(52.0), size(40.0), size(26.0)], [20, 20, 15, 10]);
        // Too small for all but the punctuation.
        assert_eq!(fit(&texts, [15.0, 15.0]).texts, ["", ".", ""]);
        assert_eq!(fit(&texts, [15.0, 12.0]).texts, ["", "", ""]);
    }

    #[test]
    fn long_texts_are_broken_into_lines_of_equal_length() {
        let fitted = fit(&owned(&["␣sentence"]), [46.0, 46.0]);
        assert_eq!((fitted.texts[0].as_str(), fitted.size), ("␣sent\nence", 14));
        assert_eq!(fit(&owned(&["<0xF0><0x9F>"]), [46.0, 46.0]).texts, ["<0xF0>\n<0x9F>"]);
        assert_eq!(fit(&owned(&["日本語日本語"]), [46.0, 46.0]).texts, ["日本語\n日本語"]);
    }

    #[test]
    fn texts_are_rather_smaller_than_broken() {
        let texts = owned(&["␣Lucas", ".", "References"]);
        let fitted = fit(&texts, [48.0, 48.0]);
        assert_eq!((fitted.texts, fitted.size), (owned(&["␣Lucas", ".", "Refer\nences"]), 12));
    }

    #[test]
    fn sentences_are_broken_at_spaces() {
        assert_eq!(paragraph("one two three", 80.0, 10), ["one two three"]);
        assert_eq!(paragraph("one two three\nfour", 50.0, 10), ["one two", "three", "four"]);
        assert_eq!((shortened("abcdef", 6), shortened("abcdefg", 6)), ("abcdef".into(), "abcde…".into()));
    }
}
