//! The arrows between the crates run one way. Each way in which one can run wrong is planted and found.

use std::path::Path;

use xtask::layers::wrong_arrows;

#[test]
fn every_arrow_of_this_workspace_runs_the_right_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/xtask has a workspace");
    assert_eq!(wrong_arrows(root).unwrap(), Vec::<String>::new());
}

/// A small workspace that is in order: wire and hub, conn on top of them, control with tokio.
struct House(tempfile::TempDir);

impl House {
    fn in_order() -> House {
        let house = House(tempfile::tempdir().unwrap());
        house.write(
            "Cargo.toml",
            r#"
            [workspace]
            members = ["crates/*"]
            [workspace.dependencies]
            wire = { package = "tidegate-wire", path = "crates/wire" }
            hub = { package = "tidegate-hub", path = "crates/hub" }
            conn = { package = "tidegate-conn", path = "crates/conn" }
            tokio = "1"
            "#,
        );
        house.krate("wire", "tidegate-wire", "[dependencies]\nhttparse = \"1\"");
        house.krate("hub", "tidegate-hub", "[dev-dependencies]\nfastrand = \"2\"");
        house.krate("conn", "tidegate-conn", "[dependencies]\nwire.workspace = true\nhub.workspace = true");
        house.krate("control", "tidegate-control", "[dependencies]\nhub.workspace = true\ntokio.workspace = true");
        house.lock(&[("tidegate-control", "tokio"), ("tidegate-wire", "httparse"), ("tokio", "mio")]);
        house
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn krate(&self, folder: &str, package: &str, rest: &str) {
        let text = format!("[package]\nname = \"{package}\"\n{rest}\n");
        self.write(&format!("crates/{folder}/Cargo.toml"), &text);
    }

    fn lock(&self, arrows: &[(&str, &str)]) {
        let text: String = arrows
            .iter()
            .map(|(from, to)| format!("[[package]]\nname = \"{from}\"\ndependencies = [\"{to}\"]\n"))
            .collect();
        self.write("Cargo.lock", &text);
    }

    fn wrong(&self) -> Vec<String> {
        wrong_arrows(self.0.path()).unwrap()
    }

    #[track_caller]
    fn assert_one_wrong(&self, parts: &[&str]) {
        let wrong = self.wrong();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(parts.iter().all(|part| wrong[0].contains(part)), "{wrong:?}");
    }
}

#[test]
fn a_workspace_in_order_has_no_wrong_arrow() {
    assert_eq!(House::in_order().wrong(), Vec::<String>::new());
}

#[test]
fn a_leaf_that_depends_on_a_crate_above_it_is_found_by_its_package_name() {
    let house = House::in_order();
    house.krate("wire", "tidegate-wire", "[dependencies]\nconn.workspace = true");
    house.assert_one_wrong(&["crates/wire/Cargo.toml", "tidegate-wire", "tidegate-conn"]);
}

#[test]
fn a_rename_in_the_manifest_itself_does_not_hide_an_arrow() {
    let house = House::in_order();
    let rest = "[dependencies]\nsomething = { package = \"tidegate-wire\", path = \"../wire\" }";
    house.krate("hub", "tidegate-hub", rest);
    house.assert_one_wrong(&["tidegate-hub", "tidegate-wire"]);
}

#[test]
fn tests_builds_and_single_targets_are_held_to_the_same_arrows() {
    for table in ["dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
        let house = House::in_order();
        house.krate("hub", "tidegate-hub", &format!("[{table}]\nconn.workspace = true"));
        house.assert_one_wrong(&["tidegate-hub", "tidegate-conn"]);
    }
}

#[test]
fn a_pure_crate_built_on_randomness_is_found_though_its_tests_may_use_it() {
    let house = House::in_order();
    house.krate("hub", "tidegate-hub", "[dependencies]\nfastrand = \"2\"");
    house.assert_one_wrong(&["tidegate-hub", "fastrand"]);
}

#[test]
fn tokio_below_any_crate_but_control_is_found_with_the_way_it_came() {
    let house = House::in_order();
    house.lock(&[("tidegate-conn", "helper"), ("helper", "tokio"), ("tidegate-control", "tokio")]);
    house.assert_one_wrong(&["crates/conn/Cargo.toml", "tidegate-conn -> helper -> tokio"]);
}

#[test]
fn a_crate_without_a_place_in_the_house_is_found() {
    let house = House::in_order();
    house.krate("extra", "tidegate-extra", "");
    house.assert_one_wrong(&["tidegate-extra", "no place"]);
}

#[test]
fn a_workspace_without_a_lock_file_is_an_error_not_a_pass() {
    let house = House::in_order();
    std::fs::remove_file(house.0.path().join("Cargo.lock")).unwrap();
    assert!(wrong_arrows(house.0.path()).unwrap_err().contains("Cargo.lock"));
}
