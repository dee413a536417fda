//! The memory of the machine.

use std::fs;

/// The bytes of memory that this process can have: the machine's, or the limit of its container. `None` where the system
/// does not tell it in a file.
pub(crate) fn machine_bytes() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").and_then(|text| total_of_meminfo(&text))?;
    // The limits of control groups of version 2 and 1, seen from inside a container.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = limits.into_iter().filter_map(read).filter_map(|text| text.trim().parse().ok());
    limits.chain([total]).min()
}

/// `MemTotal` in bytes.
fn total_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_linux() {
        let text = "MemFree:  5 kB\nMemTotal:       24689664 kB\nBuffers: 1 kB\n";
        assert_eq!(total_of_meminfo(text), Some(24_689_664 * 1024));
        assert_eq!(total_of_meminfo("MemTotal: many kB"), None);
        assert_eq!(total_of_meminfo(""), None);
        if cfg!(target_os = "linux") {
            assert!(machine_bytes().unwrap() > 100_000_000);
        }
    }
}
