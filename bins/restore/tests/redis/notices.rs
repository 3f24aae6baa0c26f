//! What `restore-redis` tells of itself.

use crate::scene::Scene;
use crate::told::{Notices, Task};

#[tokio::test(flavor = "multi_thread")]
async fn restores_of_redis_tell_how_they_end() {
    let scene = Scene::new().await;
    let (notices, configuration) = (Notices::new(), scene.configuration());
    let folder = scene.world.folder.path();
    let args = ["--config-file", &*configuration, "--before", "flushall"];
    let command = || {
        let command = scene.command(&args);
        // The scene has no configuration of its own.
        std::fs::write(folder.join("backstay.toml"), notices.configuration()).unwrap();
        command
    };
    let repository = folder.join("repository");
    let task = Task { program: "restore-redis", folder, repository, command: Box::new(command) };
    tokio::task::block_in_place(|| task.lives(&notices));
}
