//! Which start of the operating system this is.

use std::fmt;
use std::fs;
use std::str::FromStr;

/// Made anew by the kernel at every start (`random(4)`).
const PLACE: &str = "/proc/sys/kernel/random/boot_id";

/// One start of the operating system. What was written under another one may never have reached a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boot(u128);

impl Boot {
    /// The present one; `None` where the system does not tell.
    pub(super) fn current() -> Option<Self> {
        let text = fs::read_to_string(PLACE).ok()?;
        let digits: String = text.trim().chars().filter(|letter| *letter != '-').collect();
        (digits.len() == 32).then(|| digits.parse().ok()).flatten()
    }

    #[cfg(test)]
    pub(super) const fn new(number: u128) -> Self {
        Self(number)
    }
}

impl FromStr for Boot {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_which_start_this_is() {
        let boot = Boot::current().unwrap();
        assert_eq!(Some(boot), Boot::current());
        assert_eq!(boot.to_string().parse(), Ok(boot));
        assert!("".parse::<Boot>().is_err() && "g".parse::<Boot>().is_err());
    }
}
