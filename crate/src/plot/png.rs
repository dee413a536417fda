//! PNG of coloured cells, a pixel for each, for static pictures of many cells.

use std::io::Write;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

/// A PNG of `rows × columns` pixels, given row by row as red, green, blue and opacity.
pub(super) fn png([rows, columns]: [usize; 2], pixels: &[[u8; 4]]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend((columns as u32).to_be_bytes());
    header.extend((rows as u32).to_be_bytes());
    // 8 bits a channel, four channels, no interlacing.
    header.extend([8, 6, 0, 0, 0]);
    push_chunk(&mut png, b"IHDR", &header);
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    let written = pixels.chunks(columns.max(1)).try_for_each(|row| {
        zlib.write_all(&[0])?; // a row that is not filtered
        zlib.write_all(row.as_flattened())
    });
    let data = written.and_then(|()| zlib.finish()).expect("writing to a vector cannot fail");
    push_chunk(&mut png, b"IDAT", &data);
    push_chunk(&mut png, b"IEND", &[]);
    png
}

fn push_chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    png.extend((data.len() as u32).to_be_bytes());
    png.extend(kind);
    png.extend(data);
    png.extend(crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_their_length_and_checksum() {
        let png = png([1, 2], &[[1, 2, 3, 255], [4, 5, 6, 0]]);
        assert_eq!(png[..16], *b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
        // Every PNG ends with this chunk.
        assert_eq!(png[png.len() - 12..], *b"\0\0\0\0IEND\xaeB`\x82");
        let data = &png[8 + 25 + 8..png.len() - 12 - 4];
        let mut rows = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(data), &mut rows).unwrap();
        assert_eq!(rows, [0, 1, 2, 3, 255, 4, 5, 6, 0]);
    }
}
