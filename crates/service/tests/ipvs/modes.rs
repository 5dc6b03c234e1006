//! From this mode to another, and back.

use weft_kernel::testing::eventually;
use weft_service::Changed;
use weft_service::ipvs::{self, Ipvs, IpvsConfig, LINK};
use weft_service::nftables::Nftables;

use super::world::{Held, World, changed, frontend, listed, plan, run};
use super::{WEB, web};

const SOON: std::time::Duration = std::time::Duration::from_secs(180);

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn connections_outlive_a_change_of_the_mode() {
    let mut world = World::new();
    let plan = plan(&[(web(), frontend(&[1, 2]))]);
    Nftables::open().unwrap().apply(&plan, &Changed::default()).unwrap();
    let mut old = world.client(|| Held::to(WEB));
    Ipvs::open(IpvsConfig::default()).unwrap().apply(&plan, &changed(&[web()])).unwrap();
    let mut held = world.client(|| Held::to(WEB));
    assert!(old.goes_on() && held.goes_on());
    assert_eq!(listed().len(), 3);
    Nftables::open().unwrap().apply(&plan, &Changed::default()).unwrap();
    assert!(!ipvs::retire().unwrap());
    assert!(old.goes_on() && held.goes_on());
    let mut new = world.client(|| Held::to(WEB));
    assert!(new.goes_on());
    assert!(listed().iter().all(|line| !line.ends_with("=1")), "{:?}", listed());
    drop(held);
    run("sh", &["-c", "ipvsadm --set 1 1 1"]);
    eventually(SOON, "nothing of the mode is left", || ipvs::retire().unwrap());
    assert!(!run("ip", &["-o", "link"]).contains(LINK));
    assert!(old.goes_on() && new.goes_on());
}
