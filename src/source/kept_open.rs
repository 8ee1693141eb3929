//! Limits how many files all feeds together keep open for as long as they run. The system limits the open files of a
//! process, and tables, clients and the lake always need some. So feeds may keep half of them open: a feed that needs
//! more waits and reports the cause, while the rest of the run goes on.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};

static KEPT: AtomicU64 = AtomicU64::new(0);

/// Permission to keep one file open, which is returned when this is dropped.
#[derive(Debug)]
pub(crate) struct KeptOpen {
    count: &'static AtomicU64,
}

impl KeptOpen {
    /// Takes a permission.
    ///
    /// # Errors
    /// Feeds already keep half of the files open that the process may open.
    pub(crate) fn acquire() -> io::Result<KeptOpen> {
        // Systems without such a limit report none.
        let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
        KeptOpen::acquire_of(&KEPT, limit / 2)
    }

    fn acquire_of(count: &'static AtomicU64, most: u64) -> io::Result<KeptOpen> {
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::new(
                ErrorKind::QuotaExceeded,
                format!(
                    "feeds keep {most} files open already, half of what the process may; raise its limit of open files \
                     (ulimit -n, LimitNOFILE) and start again"
                ),
            ));
        }
        Ok(KeptOpen { count })
    }
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_makes_room_for_another() {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let first = KeptOpen::acquire_of(&COUNT, 2).unwrap();
        let second = KeptOpen::acquire_of(&COUNT, 2).unwrap();
        let refused = KeptOpen::acquire_of(&COUNT, 2).unwrap_err();
        assert!(refused.to_string().contains("ulimit"), "{refused}");
        drop(first);
        let third = KeptOpen::acquire_of(&COUNT, 2).unwrap();
        drop((second, third));
        assert_eq!(COUNT.load(Ordering::Relaxed), 0);
    }
}
