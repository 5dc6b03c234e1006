//! Namespaces: opening, pinning, entering, and what is refused.

use std::fs::File;
use std::path::Path;

use nix::sys::stat::Mode;
use weft_kernel::testing::{TestNs, require_root};
use weft_kernel::{Error, Netlink, Netns};

#[test]
fn what_is_no_network_namespace_is_refused_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let (fifo, plain) = (directory.path().join("fifo"), directory.path().join("plain"));
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    File::create(&plain).unwrap();
    let pid_namespace = Path::new("/proc/self/ns/pid");
    for path in [&*fifo, &*plain, directory.path(), Path::new("/dev/null"), pid_namespace] {
        let error = Netns::open(path).unwrap_err();
        assert!(matches!(error, Error::NotANetns { .. }), "{}: {error}", path.display());
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    assert!(Netns::open(&directory.path().join("absent")).unwrap_err().not_found());
}

#[test]
fn the_own_namespace_opens_as_itself() {
    let own = Netns::open(Path::new("/proc/self/ns/net")).unwrap();
    assert_eq!(
        own.id().unwrap(),
        Netns::open(Path::new("/proc/1/ns/net")).unwrap_or(own.clone()).id().unwrap()
    );
}

#[test]
fn a_pinned_namespace_lives_until_it_is_unpinned() {
    require_root();
    let directory = tempfile::tempdir().unwrap();
    let pin = directory.path().join("ns");
    let id = Netns::create(&pin).unwrap().id().unwrap();
    let again = Netns::open(&pin).unwrap();
    assert_eq!(again.id().unwrap(), id);
    assert!(Netns::create(&pin).unwrap_err().exists(), "a pin in use is not taken over");
    let lo = Netlink::open_in(&again).unwrap().link("lo").unwrap().unwrap();
    assert!(lo.up);
    Netns::unpin(&pin).unwrap();
    assert!(!pin.exists());
    Netns::unpin(&pin).unwrap();
}

#[test]
fn run_and_guard_leave_the_caller_where_it_was() {
    let test = TestNs::new();
    let here = Netns::current().unwrap().id().unwrap();
    assert_eq!(here, test.ns().id().unwrap());
    let other = Netns::create_unpinned().unwrap();
    let there = other.run(|| Netns::current().unwrap().id().unwrap()).unwrap();
    assert_eq!(there, other.id().unwrap());
    assert_eq!(Netns::current().unwrap().id().unwrap(), here);
    {
        let _guard = other.guard().unwrap();
        assert_eq!(Netns::current().unwrap().id().unwrap(), there);
    }
    assert_eq!(Netns::current().unwrap().id().unwrap(), here);
}

#[test]
fn the_test_thread_returns_after_a_panic() {
    let here = Netns::current().unwrap().id().unwrap();
    let panicked = std::panic::catch_unwind(|| {
        let _test = TestNs::new();
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(Netns::current().unwrap().id().unwrap(), here);
}
