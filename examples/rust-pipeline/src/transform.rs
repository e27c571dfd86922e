//! Middle of the pipeline: turns each reading from Celsius into Fahrenheit and smooths it over the last four.

use dora_node_api::{DoraNode, Event, into_vec};
use std::collections::VecDeque;

/// Readings that one mean is made of.
const WINDOW: usize = 4;

fn main() -> eyre::Result<()> {
    let (mut node, mut events) = DoraNode::init_from_env()?;
    let mut window = VecDeque::with_capacity(WINDOW);
    while let Some(event) = events.recv() {
        match event {
            Event::Input { id, metadata, data } if id.as_str() == "reading" => {
                let reading: Vec<f64> = into_vec(&data)?;
                let [number, celsius] = reading[..] else {
                    eyre::bail!("a reading has {} values, and two are wanted", reading.len());
                };
                if window.len() == WINDOW {
                    window.pop_front();
                }
                window.push_back(celsius * 9.0 / 5.0 + 32.0);
                let mean = window.iter().sum::<f64>() / window.len() as f64;
                println!("transform: reading {number} is {mean:.2} F");
                node.send_output("smooth".to_owned().into(), metadata.parameters, vec![number, mean])?;
            }
            Event::Stop(_) => println!("transform: no more readings"),
            _ => {}
        }
    }
    Ok(())
}
