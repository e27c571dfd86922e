//! The small world itself, without the program: what the other tests take for granted about it.

use dora_remote_tests::netns::{CLOUD, ROBOT, ROUTER, World};

#[test]
fn nobody_can_dial_the_robot_and_a_cut_is_silent() {
    let Some(world) = World::new() else { return };
    assert!(world.reaches("robot", CLOUD));
    assert!(world.reaches("laptop", ROUTER), "the router itself is on the internet");
    assert!(!world.reaches("laptop", ROBOT));
    world.cut();
    assert!(!world.reaches("robot", CLOUD));
    assert!(world.reaches("laptop", CLOUD), "others are not concerned");
    world.heal();
    assert!(world.reaches("robot", CLOUD));
}
