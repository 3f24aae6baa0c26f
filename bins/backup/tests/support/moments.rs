//! Random moments in the life of a program, most of them before its end.

use std::fmt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Moments between the start of a program and the end that is expected of it.
///
/// What is expected follows what is seen: a run that ended before its moment gives its length, and one that lived almost
/// as long as ever lets the next ones live longer. So the moments cover a run also on a machine that becomes ten times slower.
pub struct Moments {
    random: StdRng,
    /// How long a run is expected to take.
    usual: Duration,
    runs: u32,
    /// Kills in each tenth of a run.
    tenths: [u32; 10],
}

impl Moments {
    /// With a first guess, the length of one run.
    pub fn new(seed: u64, usual: Duration) -> Self {
        Self { random: StdRng::seed_from_u64(seed), usual, runs: 0, tenths: [0; 10] }
    }

    /// Runs that were killed before they ended by themselves.
    pub fn kills(&self) -> u32 {
        self.tenths.iter().sum()
    }

    /// Waits for a random moment. How the program ended, if it did before.
    pub fn wait(&mut self, child: &mut Child, begun: Instant) -> Option<ExitStatus> {
        self.runs += 1;
        let delay = self.usual.mul_f64(self.random.random_range(0.0..1.0));
        while begun.elapsed() < delay {
            if let Some(status) = child.try_wait().unwrap() {
                self.usual = begun.elapsed();
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// Kills a program that was started just now. `None` if it was alive; how it ended, if it had.
    pub fn kill(&mut self, child: &mut Child, begun: Instant) -> Option<ExitStatus> {
        if let Some(status) = self.wait(child, begun) {
            return Some(status);
        }
        let part = begun.elapsed().as_secs_f64() / self.usual.as_secs_f64();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.code().is_some() {
            self.usual = begun.elapsed();
            return Some(status);
        }
        self.tenths[((part * 10.0) as usize).min(9)] += 1;
        if part > 0.9 {
            self.usual = self.usual.mul_f64(1.1);
        }
        None
    }
}

impl fmt::Display for Moments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kills, runs, usual) = (self.kills(), self.runs, self.usual);
        write!(
            f,
            "{kills} of {runs} runs of about {usual:.1?} were killed, by tenths of a run {:?}",
            self.tenths
        )
    }
}
