//! Ends a process when the one that started it is gone, even by SIGKILL.
#![allow(unsafe_code)] // `pre_exec`

use std::{io, os::unix::process::CommandExt, process::Command};

use rustix::{
    io::Errno,
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
};

/// Makes `command` start a process that gets SIGKILL when the thread of process `parent` that starts it ends. If `parent` is
/// gone already, the start fails. The setting survives an `exec`.
///
/// The signal is sent again for each further thread of the parent that ends, so SIGTERM would look like several of them, which
/// end training before its state is saved.
pub(crate) fn end_with_parent(command: &mut Command, parent: Pid) {
    let prepare = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that ended before the line above sends no signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: between fork and exec, a process may only do what is safe in a signal handler. Both functions are system calls;
    // nothing allocates, takes a lock or panics.
    unsafe { command.pre_exec(prepare) };
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{getpid, getppid};

    use super::end_with_parent;

    #[test]
    fn process_whose_parent_is_gone_is_not_started() {
        let mut command = Command::new("true");
        end_with_parent(&mut command, getpid());
        assert!(command.status().unwrap().success());
        // The parent of the test, which does not start the process.
        let mut orphan = Command::new("true");
        end_with_parent(&mut orphan, getppid().unwrap());
        assert_eq!(orphan.status().unwrap_err().raw_os_error(), Some(rustix::io::Errno::SRCH.raw_os_error()));
    }
}
