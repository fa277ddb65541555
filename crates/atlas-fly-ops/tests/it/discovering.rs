//! Discovery over real folders.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use atlas_fly_ops::{Discovery, Problem, discover_apps};
use tempfile::TempDir;

fn project(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// Name and file of each app, and each report, relative to the project.
fn seen(root: &Path, found: &Discovery) -> (Vec<String>, Vec<(String, Problem)>) {
    let short = |path: &Path| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .display()
            .to_string()
    };
    let apps = found.apps.iter().map(|app| {
        assert_eq!(app.config.parent(), Some(&*app.directory));
        format!("{} {}", app.name, short(&app.config))
    });
    let mut reports: Vec<_> = found
        .reports
        .iter()
        .map(|report| (short(&report.path), report.problem.clone()))
        .collect();
    reports.sort_by(|a, b| a.0.cmp(&b.0));
    (apps.collect(), reports)
}

#[test]
fn root_and_nested_apps_of_all_three_formats_come_sorted() {
    let dir = project(&[
        ("fly.toml", b"app = \"shop\"\nprimary_region = \"fra\"\n"),
        ("api/fly.json", br#"{"app":"api"}"#),
        ("worker/fly.yaml", b"app: worker\n"),
        ("apps/deep/fly.toml", b"app = 'deep'"),
    ]);
    let at = |depth| seen(dir.path(), &discover_apps(dir.path(), depth));
    assert_eq!(at(0), (vec!["shop fly.toml".into()], vec![]));
    assert_eq!(
        at(1),
        (
            vec![
                "api api/fly.json".into(),
                "shop fly.toml".into(),
                "worker worker/fly.yaml".into()
            ],
            vec![]
        )
    );
    assert_eq!(at(2).0.len(), 4);
    assert_eq!(at(usize::MAX).0.len(), 4, "it ends where the folders do");
    assert_eq!(
        discover_apps(dir.path(), 0).apps[0]
            .primary_region
            .as_deref(),
        Some("fra")
    );
}

#[test]
fn a_root_that_is_no_folder_gives_no_apps_and_a_report() {
    let dir = project(&[("file", b"")]);
    for (path, kind) in [
        ("absent", ErrorKind::NotFound),
        ("file", ErrorKind::NotADirectory),
    ] {
        let found = discover_apps(&dir.path().join(path), 1);
        assert_eq!(
            seen(dir.path(), &found),
            (vec![], vec![(path.to_owned(), Problem::Unreadable(kind))])
        );
    }
}

#[test]
fn every_file_that_is_not_used_is_reported_with_its_reason() {
    let dir = project(&[
        ("bad-name/fly.toml", b"app = \"../../v1/apps\""),
        ("bom/fly.toml", b"\xef\xbb\xbfapp = \"bom\"\r\n"),
        (
            "broken/fly.toml",
            b"[env]\nSECRET = \"s3cret\napp = \"x\"\n",
        ),
        ("bytes/fly.toml", b"app = \"\xff\""),
        ("flag/fly.yaml", b"app: --access-token\n"),
        ("huge/fly.yaml", &[b'#'; 65 * 1024]),
        ("nameless/fly.toml", b"[build]\napp = \"x\"\n"),
        ("pipe/fly.toml/inside", b""),
        ("staged/fly.staging.toml", b"app = \"x\""),
        ("two/fly.json", br#"{"app":"two"}"#),
        ("two/fly.toml", b"app = \"two\""),
        ("yml/fly.yml", b"app: yml\n"),
    ]);
    let found = discover_apps(dir.path(), 1);
    let (apps, reports) = seen(dir.path(), &found);
    assert_eq!(apps, ["bom bom/fly.toml", "two two/fly.toml"]);
    let expected = [
        ("bad-name/fly.toml", Problem::BadName),
        ("broken/fly.toml", Problem::Broken(Some(2))),
        ("bytes/fly.toml", Problem::NotUtf8),
        ("flag/fly.yaml", Problem::BadName),
        ("huge/fly.yaml", Problem::TooLarge),
        ("nameless/fly.toml", Problem::NoApp),
        (
            "pipe/fly.toml",
            Problem::Unreadable(ErrorKind::InvalidInput),
        ),
        ("staged/fly.staging.toml", Problem::NotRead),
        ("two/fly.json", Problem::Shadowed),
        ("yml/fly.yml", Problem::NotRead),
    ];
    assert_eq!(
        reports,
        expected.map(|(path, problem)| (path.to_owned(), problem))
    );
    let printed: String = found
        .reports
        .iter()
        .map(|report| format!("{report} {report:?}"))
        .collect();
    assert!(
        !printed.contains("s3cret") && !printed.contains("v1/apps"),
        "{printed}"
    );
}

#[test]
fn dependency_and_version_control_folders_are_not_entered() {
    let dir = project(&[
        ("node_modules/fly.toml", b"app = \"a\""),
        (".git/fly.toml", b"app = \"b\""),
        ("target/fly.toml", b"!"),
    ]);
    assert_eq!(discover_apps(dir.path(), 3), Discovery::default());
}

#[test]
fn one_app_in_two_folders_is_given_twice_and_reported() {
    let dir = project(&[
        ("a/fly.toml", b"app = \"x\""),
        ("b/fly.toml", b"app = \"x\""),
    ]);
    let (apps, reports) = seen(dir.path(), &discover_apps(dir.path(), 1));
    assert_eq!(apps, ["x a/fly.toml", "x b/fly.toml"]);
    assert_eq!(reports, [("b/fly.toml".to_owned(), Problem::DuplicateApp)]);
}

#[test]
fn links_that_loop_or_leave_are_reported_and_an_app_is_found_once() {
    let outside = project(&[("fly.toml", b"app = \"outside\"")]);
    let dir = project(&[("real/fly.toml", b"app = \"x\""), ("config/there", b"")]);
    symlink("real", dir.path().join("a-link")).unwrap();
    symlink(".", dir.path().join("self")).unwrap();
    symlink("..", dir.path().join("real/up")).unwrap();
    symlink("eel", dir.path().join("eel")).unwrap();
    symlink("fly.toml", dir.path().join("config/fly.toml")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    let (apps, reports) = seen(dir.path(), &discover_apps(dir.path(), 40));
    assert_eq!(apps, ["x real/fly.toml"]);
    let expected = [
        ("config/fly.toml", Problem::SymlinkLoop),
        ("dangling", Problem::Unreadable(ErrorKind::NotFound)),
        ("eel", Problem::SymlinkLoop),
        ("out", Problem::OutsideProject),
        ("real/up", Problem::SymlinkLoop),
        ("self", Problem::SymlinkLoop),
    ];
    assert_eq!(
        reports,
        expected.map(|(path, problem)| (path.to_owned(), problem))
    );
}

#[test]
fn an_unreadable_folder_is_reported_and_the_rest_is_found() {
    let dir = project(&[
        ("open/fly.toml", b"app = \"open\""),
        ("shut/fly.toml", b"app = \"shut\""),
    ]);
    let shut = dir.path().join("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything: then the folder is simply found.
    let privileged = fs::read_dir(&shut).is_ok();
    let (apps, reports) = seen(dir.path(), &discover_apps(dir.path(), 1));
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    if privileged {
        assert_eq!((apps.len(), reports.len()), (2, 0));
    } else {
        assert_eq!(apps, ["open open/fly.toml"]);
        assert_eq!(
            reports,
            [(
                "shut".to_owned(),
                Problem::Unreadable(ErrorKind::PermissionDenied)
            )]
        );
    }
}

#[test]
fn each_way_a_name_can_be_written_is_found_or_reported() {
    let cases: [(&str, &[u8], Result<&str, Problem>); 16] = [
        ("bare", b"app = shop\n", Err(Problem::Broken(Some(1)))),
        ("bom", b"\xef\xbb\xbfapp = \"shop\"\n", Ok("shop")),
        ("commented", b"# app = \"shop\"\n", Err(Problem::NoApp)),
        (
            "crlf",
            b"# mine\r\napp = \"shop\"\r\n[env]\r\napp = \"no\"\r\n",
            Ok("shop"),
        ),
        ("double", b"app = \"shop\"\n", Ok("shop")),
        (
            "doubled",
            b"app = \"shop\"\napp = \"other\"\n",
            Err(Problem::Broken(Some(2))),
        ),
        ("empty", b"app = \"\"\n", Err(Problem::BadName)),
        ("escape", b"app = \"\\u0073hop\"\n", Ok("shop")),
        ("number", b"app = 7\n", Err(Problem::Broken(Some(1)))),
        ("single", b"app = 'shop'\n", Ok("shop")),
        ("space", b"app = \"my shop\"\n", Err(Problem::BadName)),
        (
            "string",
            b"note = \"\"\"\napp = \"shop\"\n\"\"\"\n",
            Err(Problem::NoApp),
        ),
        ("table", b"[build]\napp = \"shop\"\n", Err(Problem::NoApp)),
        ("tail", b"app   =   \"shop\"   # the shop\n", Ok("shop")),
        ("upper", b"app = \"Shop\"\n", Err(Problem::BadName)),
        ("utf8", b"app = \"sh\xf6p\"\n", Err(Problem::NotUtf8)),
    ];
    for (what, text, expected) in cases {
        let dir = project(&[("fly.toml", text)]);
        let found = discover_apps(dir.path(), 0);
        let got = match (&*found.apps, &*found.reports) {
            ([app], []) => Ok(app.name.as_str()),
            ([], [report]) => Err(report.problem.clone()),
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(got, expected, "{what}");
    }
}
