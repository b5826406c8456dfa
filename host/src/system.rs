//! What only the operating system knows, and std does not ask it for: the few calls that need `unsafe`.

#![allow(unsafe_code)]

use std::path::Path;
use std::time::Duration;

/// CPU time of the calling thread. Half a microsecond or so: for once a batch, not for once a record.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours that lives through the call.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert!(answer == 0, "BUG: this system has no CPU clock for threads");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes that the file system of a folder has left for us.
pub fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: all zeros is a valid statvfs, which is plain numbers.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and both pointers live through the call.
    if unsafe { libc::statvfs(path.as_ptr(), &mut found) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(found.f_bavail as u64 * found.f_frsize as u64)
}

/// Open files that the process may have: now, and how far it may raise that itself.
pub fn file_limit() -> std::io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit of ours that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_cpu_time_and_one_that_sleeps_does_not() {
        let before = thread_cpu_time();
        let mut number = 0u64;
        while thread_cpu_time() == before {
            number = std::hint::black_box(number.wrapping_add(1));
        }
        let worked = thread_cpu_time();
        std::thread::sleep(Duration::from_millis(50));
        assert!(thread_cpu_time() - worked < Duration::from_millis(50), "sleeping is no work");
    }

    #[test]
    fn a_folder_has_room_and_one_that_is_not_there_has_none() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert!(free_bytes(Path::new("/does/not/exist")).is_err());
        let (now, most) = file_limit().unwrap();
        assert!(now > 0 && now <= most);
    }
}
