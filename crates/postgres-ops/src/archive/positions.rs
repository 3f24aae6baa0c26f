use super::{ArchiveError, ArchiveToc, DataPosition, DumpId, Format};

/// The state byte of a known position.
const POSITION_KNOWN: u8 = 2;

/// Writes into a copy of the archive's start where each data block begins.
///
/// `pg_dump` does this itself when it writes to a file, but not when it writes to a pipe. With the positions known,
/// `pg_restore -j` seeks straight to a table instead of reading over everything before it. `prefix` is the archive's
/// header and table of contents, `blocks` are entries with the offsets at which their blocks will stand in the file.
///
/// # Errors
/// [`ArchiveError::Corrupt`] if `prefix` is not what `toc` was read from, or a block belongs to no entry with data.
pub fn set_block_positions(
    prefix: &mut [u8],
    toc: &ArchiveToc,
    blocks: impl IntoIterator<Item = (DumpId, u64)>,
) -> Result<(), ArchiveError> {
    let header = toc.header();
    if header.format != Format::Custom {
        return Err(ArchiveError::NotCustomFormat { found: header.format });
    }
    if prefix.len() as u64 != toc.length() {
        return Err(ArchiveError::Corrupt { offset: toc.length(), what: "a start of another length" });
    }
    for (dump_id, position) in blocks {
        let corrupt = |what| ArchiveError::Corrupt { offset: position, what };
        let entry = toc
            .find(dump_id)
            .filter(|entry| entry.data != DataPosition::NoData)
            .ok_or_else(|| corrupt("a data block that no entry announces"))?;
        let bytes = position.to_le_bytes();
        if bytes.iter().skip(header.offset_size).any(|&byte| byte != 0) {
            return Err(corrupt("a data block too far behind for the size of positions"));
        }
        let field = usize::try_from(entry.position_field)
            .ok()
            .and_then(|start| prefix.get_mut(start..start + 1 + header.offset_size))
            .ok_or_else(|| corrupt("an entry without a place for its position"))?;
        field[0] = POSITION_KNOWN;
        field[1..].copy_from_slice(&bytes[..header.offset_size]);
    }
    Ok(())
}
