//! A wrong configuration or command line is refused with file, key, what is wrong and how to mend it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::gateway::Site;

/// Runs `command` with a changed configuration; it must refuse with 2 and name everything in `named`.
fn refused(command: &str, from: &str, to: &str, named: &[&str]) {
    let site = Site::with(|_, text| {
        assert!(text.contains(from), "{from} is in the usual configuration");
        text.replacen(from, to, 1)
    });
    refuses(&site, &[command], named);
}

/// Runs a command that must refuse with 2 and name the file and everything in `named`; what it says.
fn refuses(site: &Site, command: &[&str], named: &[&str]) -> String {
    let output = site.run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
    assert!(output.stdout.is_empty(), "nothing on stdout");
    for word in named.iter().chain(&["earmark.toml"]) {
        assert!(said.contains(word), "`{word}` is named: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn an_unknown_key_is_refused_with_its_name() {
    for command in ["check", "serve"] {
        refused(command, "max_calls = 2000", "max_cals = 2000", &["max_cals", "max_calls"]);
    }
}

#[test]
fn an_unknown_line_class_is_refused_with_the_known_ones() {
    let known = ["always", "dispatch", "consent", "never", "union"];
    refused("check", "class = \"dispatch\"", "class = \"always\"", &known);
}

#[test]
fn a_number_that_is_none_is_refused() {
    refused("check", "number = \"+18607427331\"", "number = \"742-7331\"", &["number", "742-7331"]);
}

#[test]
fn peers_that_cannot_be_told_apart_are_refused() {
    let site = Site::with(|site, text| {
        text.replacen(
            &format!("uri = \"sip:{}\"", site.carrier()),
            &format!("uri = \"sip:{}\"", site.pbx()),
            1,
        )
    });
    refuses(&site, &["check"], &["peers[1].allow", "\"pbx\""]);
}

#[test]
fn a_line_that_is_listed_twice_is_refused_with_both_names() {
    let named =
        ["lines[1].number", "+18607427331", "Police dispatch 1", "Superintendent's office", "keep it"];
    refused("check", "number = \"+18607427310\"", "number = \"+18607427331\"", &named);
}

#[test]
fn a_second_instance_on_the_same_data_is_refused_and_the_first_goes_on() {
    let site = Site::new();
    let mut gateway = site.start();
    refuses(&site, &["serve"], &["node.data_dir", "in use by another process", "use another folder"]);
    gateway.lives();
    assert_eq!(site.pbx_phone().options(), 200);
}

#[test]
fn a_key_file_that_is_none_is_refused_unseen() {
    let site = Site::new();
    assert_eq!(site.start().terminate(), Some(0));
    let key = site.data().join("keys/master.key");
    let sound = fs::read(&key).expect("the key that the first start made");
    let is_refused = |named: &[&str]| {
        for command in [["serve"].as_slice(), &["recordings", "verify"]] {
            let said = refuses(&site, command, &[&["storage.key_file", "master.key"], named].concat());
            assert!(!said.contains("open sesame"), "{said}");
        }
    };
    fs::write(&key, "open sesame").expect("a key file");
    is_refused(&["64 hexadecimal digits", "restore it from its backup"]);
    fs::write(&key, sound).expect("a key file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permissions");
    is_refused(&["can be read by others", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("permissions");
    assert!(site.run(["recordings", "verify"]).status.success());
}

#[test]
fn a_missing_configuration_names_the_file() {
    let site = Site::new();
    fs::remove_file(site.config_file()).expect("the configuration");
    let output = site.run(["serve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("earmark.toml"));
}

#[test]
fn check_says_what_each_line_does_without_binding_a_port() {
    let site = Site::new();
    let _gateway = site.start();
    let output = site.run(["check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    for line in ["+18607427331", "+18607427310", "+18607427399"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn an_id_that_is_not_there_is_no_and_not_an_error() {
    let site = Site::new();
    let _gateway = site.start();
    let id = "01930000-0000-7000-8000-000000000000";
    for arguments in [["calls", "show"], ["recordings", "show"], ["recordings", "verify"]] {
        assert_eq!(site.run(arguments.iter().chain(&[id])).status.code(), Some(1), "{arguments:?}");
    }
    assert_eq!(site.run(["explain", id]).status.code(), Some(1));
    assert_eq!(site.run(["explain", "not-an-id"]).status.code(), Some(2));
    assert_eq!(site.run(["no-such-command"]).status.code(), Some(2));
}

#[test]
fn a_database_that_is_not_there_is_out_of_reach_and_not_empty() {
    let site = Site::new();
    for arguments in [["calls", "list"], ["recordings", "list"], ["audit", "verify"]] {
        assert_eq!(site.run(arguments).status.code(), Some(3), "{arguments:?}");
    }
}

#[test]
fn settings_out_of_bounds_are_refused() {
    refused("check", "drain_s = 30", "drain_s = 99999999", &["drain_s"]);
}
