//! What leaves this process for a descriptor that came in.

use super::*;
use tempfile::TempDir;

fn folder_with(yaml: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dataflow.yml");
    fs::write(&path, yaml).expect("written");
    (folder, path)
}

fn read_yaml(yaml: &str, wishes: &Wishes) -> Result<Dataflow, Failure> {
    let (_folder, path) = folder_with(yaml);
    read(&path, wishes)
}

fn env_of(dataflow: &Dataflow) -> BTreeMap<String, String> {
    let descriptor = Descriptor::parse(dataflow.text.clone().into_bytes()).expect("the text can be read");
    let env = descriptor.nodes[0].env.clone().unwrap_or_default();
    env.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

#[test]
fn dollars_are_expanded_here_once_and_arrive_as_they_are_meant() {
    let yaml = r#"
nodes:
  - id: n
    path: python
    args: "-c 'print($HOME)'"
    env:
      PLAIN: "$$"
      WORD: "$$UNSET_AND_MEANT"
      HOME_HERE: "$HOME"
      DEFAULT: "${SURELY_NOT_SET_ANYWHERE:-y}"
      PRICE: "5$"
      NESTED: "$$$$x"
      NUMBER: 5
      TRUTH: true
"#;
    let home = std::env::var("HOME").expect("HOME is set");
    let dataflow = read_yaml(yaml, &Wishes::default()).expect("good");
    let env = env_of(&dataflow);
    let expected = [
        ("PLAIN", "$"),
        ("WORD", "$UNSET_AND_MEANT"),
        ("HOME_HERE", home.as_str()),
        ("DEFAULT", "y"),
        ("PRICE", "5$"),
        ("NESTED", "$$x"),
        ("NUMBER", "5"),
        ("TRUTH", "true"),
    ];
    for (key, value) in expected {
        assert_eq!(env[key], value, "{key}");
    }
    assert!(
        dataflow.text.contains("print($HOME)"),
        "only env values are expanded: {}",
        dataflow.text
    );
}

#[test]
fn a_variable_that_is_not_set_is_a_clear_error() {
    let yaml = "nodes:\n  - id: n\n    path: python\n    env:\n      A: $SURELY_NOT_SET_ANYWHERE\n";
    let failure = read_yaml(yaml, &Wishes::default()).expect_err("not set");
    assert!(
        failure.next_step().contains("names a variable that is not set here"),
        "{failure:?}"
    );
}

#[test]
fn variables_of_the_command_line_stand_between_dataflow_and_node() {
    let yaml = "env:\n  A: flow\n  B: flow\nnodes:\n  - id: n\n    path: python\n    env:\n      C: node\n";
    let wishes = Wishes {
        variables: vec![
            ("A".to_owned(), "typed $HOME ${X:-y} $$".to_owned()),
            ("C".to_owned(), "typed".to_owned()),
            ("D".to_owned(), "007".to_owned()),
        ],
        ..Wishes::default()
    };
    let dataflow = read_yaml(yaml, &wishes).expect("good");
    let descriptor = Descriptor::parse(dataflow.text.clone().into_bytes()).expect("readable");
    let resolved = descriptor.resolve_aliases_and_set_defaults().expect("good");
    let env: BTreeMap<String, String> = resolved
        .values()
        .flat_map(|node| node.env.clone().unwrap_or_default())
        .map(|(key, value)| (key, value.to_string()))
        .collect();
    assert_eq!(env["A"], "typed $HOME ${X:-y} $$", "nothing typed is expanded again");
    assert_eq!(env["B"], "flow");
    assert_eq!(env["C"], "node");
    assert_eq!(dataflow.notes.len(), 1);
    assert!(dataflow.notes[0].contains("`D`") && !dataflow.notes[0].contains("007"));
}

#[test]
fn mistakes_in_the_yaml_name_file_line_and_column() {
    let failure = read_yaml("nodes:\n  - id: a\n    pathh: x\n", &Wishes::default()).expect_err("unknown key");
    assert!(failure.message.contains("dataflow.yml:3:5"), "{}", failure.message);
    let failure = read_yaml("nodes:\n  - id: a\n   path: x\n", &Wishes::default()).expect_err("broken");
    assert!(failure.message.contains("dataflow.yml:"), "{}", failure.message);
    assert_eq!(failure.exit, Exit::Failed);
}

#[test]
fn wiring_is_checked_before_anything_is_sent() {
    let yaml = "nodes:\n  - id: a\n    path: python\n    inputs:\n      x: nobody/out\n";
    let failure = read_yaml(yaml, &Wishes::default()).expect_err("no such output");
    assert!(failure.causes.iter().any(|cause| cause.contains("nobody")), "{failure:?}");
}

#[test]
fn the_placement_list_says_what_each_node_asks_for() {
    let yaml = "
nodes:
  - id: pinned
    path: python
    deploy: { machine: arm-1 }
  - id: labelled
    path: python
    deploy: { labels: { gpu: 'true' } }
  - id: outside
    path: dynamic
";
    let dataflow = read_yaml(yaml, &Wishes::default()).expect("good");
    let by_id: BTreeMap<_, _> = dataflow.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    assert_eq!(by_id["pinned"].machine.as_ref().map(MachineName::as_str), Some("arm-1"));
    assert_eq!(by_id["labelled"].labels["gpu"], "true");
    assert!(by_id["outside"].dynamic && !by_id["pinned"].dynamic);
}

#[test]
fn modules_are_expanded_before_the_text_leaves() {
    let (folder, path) = folder_with("nodes:\n  - id: m\n    module: part_module.yml\n");
    fs::write(
        folder.path().join("part_module.yml"),
        "module:\n  name: part\nnodes:\n  - id: inner\n    path: python\n    env:\n      A: \"$$x\"\n",
    )
    .expect("written");
    let dataflow = read(&path, &Wishes::default()).expect("good");
    assert_eq!(dataflow.nodes[0].id.as_str(), "m.inner");
    assert_eq!(env_of(&dataflow)["A"], "$x");
}

#[test]
fn sources_that_are_not_fetched_yet_are_refused_in_words() {
    let yaml = "nodes:\n  - id: a\n    git: https://example.com/x.git\n    path: x\n";
    let failure = read_yaml(yaml, &Wishes::default()).expect_err("git");
    assert!(failure.message.contains("comes from `git:`"), "{}", failure.message);
    let yaml = "nodes:\n  - id: a\n    hub: yolo@^1\n";
    let failure = read_yaml(yaml, &Wishes::default()).expect_err("hub");
    assert!(failure.message.contains("comes from `hub:`"), "{}", failure.message);
}

#[test]
fn a_dataflow_is_called_after_its_file_or_its_folder() {
    let name = |path: &str, folder: &str| default_name(Path::new(path), Path::new(folder)).map(|name| name.to_string());
    assert_eq!(name("x/camera demo.yml", "/x"), Some("camera-demo".to_owned()));
    assert_eq!(name("dataflow.yml", "/home/ann/arm"), Some("arm".to_owned()));
    assert_eq!(name("dataflow.yml", "/"), Some("dataflow".to_owned()));
    assert_eq!(name("_.yml", "/x"), None);
}
