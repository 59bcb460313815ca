//! How many signatures one tick checks: a crowd that comes back must not keep those waiting who are here.

use crate::commands::{World, replies, text};
use conn::auth::token::{ASYMMETRIC_COST, Key, Tokens};
use conn::verifications::COST_PER_TICK;
use io::sim::Client;

const ES256: &str = include_str!("../../../conn/src/auth/token/fixtures/es256.jwt");
const P256: &str = include_str!("../../../conn/src/auth/token/fixtures/p256.pem");
const CROWD: usize = 100;

fn world() -> World {
    World::with(|settings| {
        settings.tokens = Tokens { keys: vec![Key::ecdsa(P256).expect("a key")], ..Tokens::default() };
    })
}

fn crowd(world: &mut World) -> Vec<Client> {
    let connect = format!("{{\"id\":1,\"connect\":{{\"token\":\"{}\"}}}}", ES256.trim());
    (0..CROWD).map(|_| world.connecting(&connect)).collect()
}

#[test]
fn signatures_of_a_crowd_are_checked_in_slices_and_who_is_here_does_not_wait() {
    let mut world = world();
    let here = world.client();
    let crowd = crowd(&mut world);
    let (mut checked, mut slices, mut longest_wait, mut asked) = (0, Vec::new(), 0, 0);
    let mut waits = 0;
    while checked < CROWD as u64 {
        let mut bytes = Vec::new();
        text(&mut bytes, &format!("{{\"id\":{},\"unsubscribe\":{{\"channel\":\"a\"}}}}", asked + 2));
        if waits == 0 {
            here.write(&bytes);
            asked += 1;
        }
        world.tick();
        waits = if replies(&here.read()) == 1 { 0 } else { waits + 1 };
        longest_wait = longest_wait.max(waits);
        let all = world.worker.shared().counters.verifications;
        slices.push(all - checked);
        checked = all;
        assert!(slices.len() < 100, "{slices:?}");
    }
    let most = u64::from(COST_PER_TICK / ASYMMETRIC_COST);
    assert!(slices.iter().all(|&slice| slice <= most), "{slices:?}");
    assert!(slices.iter().filter(|&&slice| slice == most).count() >= CROWD / most as usize - 1, "{slices:?}");
    assert!(longest_wait <= 2, "a question was answered after {longest_wait} ticks");
    (0..5).for_each(|_| world.tick());
    let let_in = crowd.iter().filter(|client| replies(&client.read()) == 1).count();
    assert_eq!(let_in, CROWD, "each is answered once");
    assert_eq!(world.worker.shared().users.sessions("42"), CROWD as u32);
}

#[test]
fn who_waits_and_leaves_costs_no_check() {
    let mut world = world();
    let crowd = crowd(&mut world);
    while world.worker.shared().counters.verifications == 0 {
        world.tick();
    }
    crowd.iter().for_each(Client::reset);
    (0..50).for_each(|_| world.tick());
    assert!(world.worker.shared().counters.verifications < CROWD as u64 / 2);
    assert_eq!((world.worker.connections(), world.worker.shared().users.len()), (0, 0));
}
