//! Bytes that do not compress.

/// Printable ones, the same each time.
pub fn noise(length: usize) -> String {
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(5);
    (0..length).map(|_| char::from(random.random_range(b' '..=b'~'))).collect()
}
