//! Files of vocabulary counts for dataframes: CSV and Parquet.

use std::path::Path;

use super::counts::{Component, VocabularyCounts};
use crate::error::Result;
use crate::files::replace;

/// One count: layer, head, component, token id, count.
type Row = (usize, usize, Component, u32, u64);

impl VocabularyCounts {
    /// All counts, head by head. Shape: → `[count]`.
    fn rows(&self) -> impl Iterator<Item = Row> {
        let n_heads = self.source.n_heads;
        let n = Component::ALL.len();
        self.counts.iter().enumerate().flat_map(move |(index, counts)| {
            let (layer, head) = (index / n / n_heads, index / n % n_heads);
            counts.iter().map(move |(&token, &count)| (layer, head, Component::ALL[index % n], token, count))
        })
    }

    /// Writes a CSV file with a row for each count, and the columns `layer`, `head`, `component`, `token_id`, `token`,
    /// `count`.
    ///
    /// In pandas: `pandas.read_csv(path, keep_default_na=False)`, because a token may be `NA` or `null`.
    ///
    /// A spreadsheet takes a text that begins with `=`, `+`, `-` or `@` for a formula: import the columns of texts as text, or use
    /// [`Table::write_csv_for_spreadsheets`](crate::Table::write_csv_for_spreadsheets).
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write), naming the file.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        replace(path.as_ref(), |path| self.csv(path))
    }

    /// [`write_csv`](Self::write_csv) with the errors of `csv`.
    fn csv(&self, path: &Path) -> Result<(), csv::Error> {
        let mut csv = csv::Writer::from_path(path)?;
        csv.write_record(["layer", "head", "component", "token_id", "token", "count"])?;
        for (layer, head, component, token, count) in self.rows() {
            let text = self.labels.text(token);
            csv.serialize((layer, head, component.name(), token, text, count))?;
        }
        Ok(csv.flush()?)
    }

    /// Writes the columns of [`write_csv`](Self::write_csv) as a Parquet file. In pandas: `pandas.read_parquet(path)`;
    /// in polars: `polars.read_parquet(path)`. Needs the feature `parquet`, which the prebuilt library of notebooks
    /// has.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write), naming the file.
    #[cfg(feature = "parquet")]
    pub fn write_parquet(&self, path: impl AsRef<Path>) -> Result<()> {
        replace(path.as_ref(), |path| self.parquet(path))
    }

    /// [`write_parquet`](Self::write_parquet) with the errors of `parquet`.
    #[cfg(feature = "parquet")]
    fn parquet(&self, path: &Path) -> Result<(), parquet::errors::ParquetError> {
        use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
        use parquet::file::writer::SerializedFileWriter;
        const SCHEMA: &str =
            "message counts { REQUIRED INT32 layer; REQUIRED INT32 head; REQUIRED BINARY component (UTF8);
            REQUIRED INT32 token_id; REQUIRED BINARY token (UTF8); REQUIRED INT64 count; }";
        /// Rows of a row group, whose columns are in memory at once.
        const GROUP: usize = 1 << 20;
        let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(SCHEMA)?);
        let mut file = SerializedFileWriter::new(std::fs::File::create(path)?, schema, Default::default())?;
        let rows: Vec<Row> = self.rows().collect();
        for rows in rows.chunks(GROUP) {
            let mut group = file.next_row_group()?;
            let integers = |of: fn(&Row) -> usize| rows.iter().map(|row| of(row) as i32).collect::<Vec<_>>();
            let texts = |of: &dyn Fn(&Row) -> String| {
                rows.iter().map(|row| ByteArray::from(of(row).as_str())).collect::<Vec<_>>()
            };
            let text = |row: &Row| self.labels.text(row.3);
            let mut index = 0;
            while let Some(mut column) = group.next_column()? {
                match index {
                    0 => column.typed::<Int32Type>().write_batch(&integers(|row| row.0), None, None)?,
                    1 => column.typed::<Int32Type>().write_batch(&integers(|row| row.1), None, None)?,
                    2 => column.typed::<ByteArrayType>().write_batch(&texts(&|row| row.2.name().into()), None, None)?,
                    3 => column.typed::<Int32Type>().write_batch(&integers(|row| row.3 as usize), None, None)?,
                    4 => column.typed::<ByteArrayType>().write_batch(&texts(&text), None, None)?,
                    _ => {
                        let counts: Vec<i64> = rows.iter().map(|row| row.4 as i64).collect();
                        column.typed::<Int64Type>().write_batch(&counts, None, None)?
                    }
                };
                column.close()?;
                index += 1;
            }
            group.close()?;
        }
        file.close().map(drop)
    }
}
