//! How PostgreSQL is installed on this system.

use std::fs;

use super::account;

/// What to do, as part of a sentence: the one command where the system is known.
pub fn remedy() -> String {
    let command = if cfg!(target_os = "macos") {
        Some("brew install postgresql@17".to_owned())
    } else {
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        command(&os_release, if account::is_root() { "" } else { "sudo " })
    };
    match command {
        Some(command) => format!("install it with `{command}`"),
        None => "install it with the package manager of this system".to_owned(),
    }
}

/// `os_release`: the text of `/etc/os-release`; `prefix`: what gives the rights to install.
fn command(os_release: &str, prefix: &str) -> Option<String> {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']))
            .unwrap_or_default()
    };
    let major = value("VERSION_ID").split('.').next().unwrap_or_default();
    let steps = std::iter::once(value("ID"))
        .chain(value("ID_LIKE").split_whitespace())
        .find_map(|system| steps(system, major))?;
    let commands: Vec<String> = steps.iter().map(|step| format!("{prefix}{step}")).collect();
    Some(commands.join(" && "))
}

/// `system`: an `ID` of `/etc/os-release`; `major`: of its version.
fn steps(system: &str, major: &str) -> Option<&'static [&'static str]> {
    Some(match (system, major) {
        // A fresh container has no package lists.
        ("debian" | "ubuntu", _) => &["apt-get update", "apt-get install -y postgresql"],
        ("amzn", _) => &["dnf install -y postgresql15-server"],
        // Its default stream is PostgreSQL 10.
        ("rhel" | "centos" | "rocky" | "almalinux" | "ol", "8") => &["dnf module install -y postgresql:15/server"],
        ("fedora" | "rhel" | "centos", _) => &["dnf install -y postgresql-server"],
        ("alpine", _) => &["apk add postgresql"],
        ("arch", _) => &["pacman -Sy --noconfirm postgresql"],
        ("suse" | "opensuse", _) => &["zypper --non-interactive install postgresql-server"],
        ("void", _) => &["xbps-install -Sy postgresql"],
        ("gentoo", _) => &["emerge dev-db/postgresql"],
        ("freebsd", _) => &["pkg install -y postgresql17-server"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(os_release: &str, expected: Option<&str>) {
        assert_eq!(command(os_release, "").as_deref(), expected, "{os_release}");
    }

    #[test]
    fn names_the_command_of_the_system() {
        let apt = Some("apt-get update && apt-get install -y postgresql");
        let dnf = Some("dnf install -y postgresql-server");
        check(
            "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\n",
            apt,
        );
        check("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=22\n", apt);
        check("ID=fedora\nVERSION_ID=42\n", dnf);
        check(
            "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n",
            dnf,
        );
        check(
            "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"8.10\"\n",
            Some("dnf module install -y postgresql:15/server"),
        );
        check(
            "ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n",
            Some("dnf install -y postgresql15-server"),
        );
        check("ID=alpine\nVERSION_ID=3.22.1\n", Some("apk add postgresql"));
        check("ID=manjaro\nID_LIKE=arch\n", Some("pacman -Sy --noconfirm postgresql"));
        check(
            "ID='opensuse-leap'\nID_LIKE='suse opensuse'\nVERSION_ID=15.6\n",
            Some("zypper --non-interactive install postgresql-server"),
        );
        check("ID=plan9\n", None);
        check("", None);
    }

    #[test]
    fn asks_for_rights_that_the_caller_lacks() {
        assert_eq!(
            command("ID=ubuntu", "sudo ").as_deref(),
            Some("sudo apt-get update && sudo apt-get install -y postgresql")
        );
    }
}
