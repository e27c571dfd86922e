//! End of the pipeline: prints every value, counts those that did not arrive, and fails when one is out of order.
//!
//! Values that were sent before the nodes were linked may be missing: dora publishes without waiting for receivers.

use dora_node_api::{DoraNode, Event, into_vec};

fn main() -> eyre::Result<()> {
    let (_node, mut events) = DoraNode::init_from_env()?;
    let (mut last, mut missing) = (0, 0);
    while let Some(event) = events.recv() {
        match event {
            Event::Input { id, data, .. } if id.as_str() == "smooth" => {
                let value: Vec<f64> = into_vec(&data)?;
                let [number, mean] = value[..] else {
                    eyre::bail!("an input has {} values, and two are wanted", value.len());
                };
                let number = number as u64;
                eyre::ensure!(number > last, "reading {number} came after {last}");
                missing += number - last - 1;
                last = number;
                println!("sink: reading {number} arrived, {mean:.2} F");
            }
            Event::Stop(_) => println!("sink: readings up to {last}, {missing} missing"),
            _ => {}
        }
    }
    Ok(())
}
