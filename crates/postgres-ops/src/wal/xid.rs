use std::fmt;
use std::str::FromStr;

use super::WalError;

/// Number of a transaction as the log has it: 32 bits, used again after four thousand million transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Xid(u32);

impl Xid {
    /// As `pg_xact_commit_timestamp` and `xmin` have it.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Xid {
    type Err = WalError;

    /// Also takes what `pg_current_xact_id` answers, which has an epoch in front of the 32 bits; the log does not.
    fn from_str(text: &str) -> Result<Self, WalError> {
        let wrong = || WalError::Transaction { text: text.to_owned() };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = if digits { text.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
        let low = u32::try_from(number & u64::from(u32::MAX)).map_err(|_| wrong())?;
        // 0 to 2 are no transactions of users: none, bootstrap, frozen.
        if low < 3 { Err(wrong()) } else { Ok(Self(low)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_read_with_and_without_an_epoch() {
        assert_eq!("734".parse(), Ok(Xid::new(734)));
        assert_eq!((5 * (1u64 << 32) + 734).to_string().parse(), Ok(Xid::new(734)));
        for wrong in ["", "0", "2", "-3", "+3", "7a", " 7", "4294967296", "99999999999999999999"] {
            assert_eq!(
                wrong.parse::<Xid>(),
                Err(WalError::Transaction { text: wrong.to_owned() }),
                "{wrong}"
            );
        }
    }
}
