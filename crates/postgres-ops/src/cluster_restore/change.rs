//! Writes a block over an older one: only what differs, so that one damaged page costs the disk one page.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes that are compared and written together: a page of PostgreSQL, which is where changes are.
const PAGE: usize = 8192;
/// Bytes read at a time, for which memory is taken.
const WINDOW: usize = 64 << 10;

/// Makes the file hold `content` at `offset`. What cannot be read there is written.
pub(super) fn write_pages(file: &File, content: &[u8], offset: u64) -> io::Result<()> {
    let mut old = [0; WINDOW];
    for (number, window) in (0_u64..).zip(content.chunks(WINDOW)) {
        let start = offset + number * WINDOW as u64;
        let there = read(file, &mut old[..window.len()], start);
        for range in differing(&old[..there], window) {
            file.write_all_at(&window[range.clone()], start + range.start as u64)?;
        }
    }
    Ok(())
}

/// How many bytes could be read; the rest is missing, or in a bad sector.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}

/// Stretches of whole pages of `new` that `old` does not have the same.
fn differing(old: &[u8], new: &[u8]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for start in (0..new.len()).step_by(PAGE) {
        let end = new.len().min(start + PAGE);
        if old.get(start..end) == Some(&new[start..end]) {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_differ_are_written() {
        let new = vec![1; 5 * PAGE + 10];
        let mut old = new.clone();
        assert_eq!(differing(&old, &new), []);
        old[PAGE] = 2;
        old[3 * PAGE - 1] = 2;
        old[5 * PAGE + 9] = 2;
        assert_eq!(differing(&old, &new), [PAGE..3 * PAGE, 5 * PAGE..5 * PAGE + 10]);
        assert_eq!(differing(&old[..4 * PAGE + 5], &new), [PAGE..3 * PAGE, 4 * PAGE..5 * PAGE + 10]);
        let whole = differing(&[], &new);
        assert_eq!((whole.len(), &whole[0]), (1, &(0..new.len())));
    }

    #[test]
    fn a_file_becomes_right_whatever_it_was() {
        let content: Vec<u8> = (0..3 * WINDOW + 100).map(|at| (at % 251) as u8).collect();
        let mut damaged = content.clone();
        damaged[WINDOW + 5] ^= 1;
        for old in [Vec::new(), damaged, content[..WINDOW + 77].to_vec(), vec![9; 4 * WINDOW]] {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &old).unwrap();
            write_pages(&file, &content, 0).unwrap();
            let mut found = vec![0; content.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found, content);
        }
    }
}
