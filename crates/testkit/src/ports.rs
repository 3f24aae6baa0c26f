//! Free loopback ports that two tests never get at once.
//!
//! Asking the kernel for port 0, closing it and passing the number to a server is a race, and a port from the
//! ephemeral range may be taken by an outgoing connection while its server restarts. So ports come from below that
//! range, and the **UDP** port of the same number stays bound as the reservation: it excludes every other test on
//! the machine, and the kernel takes it back however the process ends.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::{Error, Result};

/// Below Linux's usual ephemeral range (from 32768) and above what services are given by hand.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback port nobody else gets while this lives.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    _reservation: UdpSocket,
}

impl PortLease {
    /// Reserves a port that nothing listens on.
    ///
    /// # Errors
    /// When all 12,000 are taken.
    pub fn reserve() -> Result<Self> {
        let mut seed = [0; 2];
        random_bytes(&mut seed)?;
        let start = u16::from_ne_bytes(seed) % COUNT;
        (0..COUNT)
            .find_map(|step| Self::try_port(FIRST + (start + step) % COUNT))
            .ok_or(Error::State("no free loopback port between 20000 and 32000"))
    }

    fn try_port(port: u16) -> Option<Self> {
        let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        // A server on 0.0.0.0 would clash too, so ask for that one.
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
        Some(Self { port, _reservation: reservation })
    }

    /// The number.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Fills `bytes` from the kernel's generator.
pub(crate) fn random_bytes(bytes: &mut [u8]) -> Result<()> {
    let source = "/dev/urandom";
    let fill = |mut file: File| -> io::Result<()> { file.read_exact(bytes) };
    File::open(source).and_then(fill).map_err(Error::io("read", source))
}

/// A random word of 32 hexadecimal digits, fit for a password.
pub(crate) fn random_word() -> Result<String> {
    let mut bytes = [0; 16];
    random_bytes(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn leased_ports_are_distinct_and_free() {
        let leases: Vec<_> = (0..50).map(|_| PortLease::reserve().unwrap()).collect();
        let ports: HashSet<_> = leases.iter().map(PortLease::port).collect();
        assert_eq!(ports.len(), leases.len());
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_not_leased() {
        let lease = PortLease::reserve().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, lease.port())).unwrap();
        let port = lease.port();
        drop(lease);
        assert!(PortLease::try_port(port).is_none());
        drop(listener);
    }
}
