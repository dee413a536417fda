//! Tables as CSV for spreadsheets, which run what looks like a formula.

use std::path::Path;

use super::table::Table;
use crate::error::Result;
use crate::files::replace;

/// A cell that begins with one of these may be run. Some languages' versions take the wide forms too.
const FORMULAS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];

impl Table {
    /// Writes all rows as CSV for spreadsheets, with the names of the columns in the first row. A text with which a formula
    /// could begin (`=`, `+`, `-`, `@`, their wide forms, a tab or a carriage return) gets an apostrophe in front, unless
    /// it is a number.
    ///
    /// For programs that read data, `write_csv` of [`HeadData`](crate::HeadData), of
    /// [`VocabularyCounts`](crate::experiments::VocabularyCounts) and of a [`Receipt`](crate::experiments::Receipt) write
    /// exact texts.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write), naming the file.
    pub fn write_csv_for_spreadsheets(&self, path: impl AsRef<Path>) -> Result<()> {
        replace(path.as_ref(), |path| -> Result<(), csv::Error> {
            let mut csv = csv::WriterBuilder::new().flexible(true).from_path(path)?;
            for row in std::iter::once(self.header()).chain(self.rows().iter().map(Vec::as_slice)) {
                csv.write_record(row.iter().map(|text| harmless(text)))?;
            }
            Ok(csv.flush()?)
        })
    }
}

/// A text as a cell that no spreadsheet runs.
fn harmless(text: &str) -> String {
    // Tables have the typographic minus sign.
    let number = text.replace('−', "-");
    if number.strip_suffix('%').unwrap_or(&number).parse::<f64>().is_ok_and(f64::is_finite) {
        return number;
    }
    if text.starts_with(FORMULAS) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_numbers_stay_numbers() {
        let texts = ["=1+1", "-x", "−0.5", "-2%", "+nan", "@a", "\t=1", "＝1", "the", "\",=1", "−a"];
        let rows = vec![texts.map(String::from).to_vec(), vec!["short".into()]];
        let file = tempfile::NamedTempFile::new().unwrap();
        Table::new("caption", &["=a", "b"], rows).write_csv_for_spreadsheets(file.path()).unwrap();
        let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_path(file.path()).unwrap();
        let read: Vec<Vec<String>> = csv.records().map(|row| row.unwrap().iter().map(String::from).collect()).collect();
        assert_eq!(read[0], ["'=a", "b"]);
        assert_eq!(read[1], ["'=1+1", "'-x", "-0.5", "-2%", "'+nan", "'@a", "'\t=1", "'＝1", "the", "\",=1", "−a"]);
        assert_eq!(read[2], ["short"]);
    }
}
