//! Which CPU a worker best runs on, and the NUMA node of a NIC, as sysfs and procfs tell.

use std::fs;
use std::io;
use std::path::Path;

use crate::sys;

/// Lets the calling thread run on this CPU only.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    sys::pin_to_cpu(cpu)
}

/// A CPU for each of so many workers that share their work evenly; `None` unless there are just so many.
///
/// Workers that wait for each other and wake each other are put on one CPU by the scheduler, again and again, while another
/// is idle. With CPUs to spare that does less harm than to be kept from them.
pub fn cpu_each(workers: usize) -> Option<Vec<usize>> {
    Some(sys::allowed_cpus()).filter(|cpus| cpus.len() == workers)
}

/// The CPU for the worker of an interface's queue, among those that this process may use.
///
/// A worker that polls the queue itself runs best where the queue's interrupts come, any other beside it: on the NIC's
/// NUMA node, but not on that CPU.
pub fn cpu_for_queue(interface: &str, queue: u32, busy_poll: bool) -> Option<usize> {
    let device = format!("/sys/class/net/{interface}/device");
    let node =
        numa_node(interface).and_then(|node| read(&format!("/sys/devices/system/node/node{node}/cpulist")));
    let interrupt = fs::read_to_string("/proc/interrupts").ok().and_then(|interrupts| {
        let numbers = fs::read_dir(Path::new(&device).join("msi_irqs")).ok()?;
        let numbers: Vec<u32> =
            numbers.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let number = irq_of_queue(&interrupts, &numbers, queue)?;
        cpu_list(&read(&format!("/proc/irq/{number}/effective_affinity_list"))?).first().copied()
    });
    choose(
        &sys::allowed_cpus(),
        &node.map(|list| cpu_list(&list)).unwrap_or_default(),
        interrupt,
        queue,
        busy_poll,
    )
}

/// The NUMA node of an interface's device; `None` where there is only one, or no device.
pub(crate) fn numa_node(interface: &str) -> Option<u32> {
    let nodes = read("/sys/devices/system/node/online").map_or(1, |list| cpu_list(&list).len());
    if nodes < 2 {
        return None;
    }
    // -1 is a device that is near to none.
    read(&format!("/sys/class/net/{interface}/device/numa_node"))?.parse().ok()
}

fn choose(
    allowed: &[usize],
    near: &[usize],
    interrupt: Option<usize>,
    queue: u32,
    busy_poll: bool,
) -> Option<usize> {
    if busy_poll && let Some(cpu) = interrupt.filter(|cpu| allowed.contains(cpu)) {
        return Some(cpu);
    }
    let near: Vec<usize> =
        allowed.iter().copied().filter(|cpu| near.is_empty() || near.contains(cpu)).collect();
    let beside: Vec<usize> = near.iter().copied().filter(|cpu| Some(*cpu) != interrupt).collect();
    let candidates =
        [beside.as_slice(), near.as_slice(), allowed].into_iter().find(|cpus| !cpus.is_empty())?;
    candidates.get(queue as usize % candidates.len()).copied()
}

/// The interrupt of a queue: that of the device's whose name ends in its number, as in `eth0-TxRx-3`, `mlx5_comp3@pci:...`
/// or `virtio0-input.3`.
fn irq_of_queue(interrupts: &str, of_device: &[u32], queue: u32) -> Option<u32> {
    interrupts.lines().find_map(|line| {
        let (number, rest) = line.trim_start().split_once(':')?;
        let number = number.parse().ok().filter(|number| of_device.contains(number))?;
        let name = rest.split_whitespace().last()?.split('@').next()?;
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let output = ["output", "-tx-"].iter().any(|word| name.contains(word));
        (!output && name[name.len() - digits..].parse() == Ok(queue)).then_some(number)
    })
}

/// CPUs in the kernel's notation, such as `0-3,8`.
fn cpu_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse::<usize>().ok()?.min(8191))
    };
    text.split(',').filter_map(range).flatten().collect()
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpu_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cpu_list(""), Vec::<usize>::new());
        assert_eq!(cpu_list("x,5-"), Vec::<usize>::new());
    }

    #[test]
    fn a_queue_is_known_by_the_number_at_the_end_of_its_interrupts_name() {
        let interrupts = "            CPU0       CPU1
  24:          0          1   PCI-MSI 65536-edge      virtio0-config
  25:       1204          0   PCI-MSI 65537-edge      virtio0-input.0
  26:          0         12   PCI-MSI 65538-edge      virtio0-output.0
  27:          3          0   PCI-MSI 65539-edge      eth1-TxRx-0
  28:          3          0   PCI-MSI 65540-edge      mlx5_comp12@pci:0000:01:00.0
 NMI:          0          0   Non-maskable interrupts";
        assert_eq!(irq_of_queue(interrupts, &[24, 25, 26], 0), Some(25));
        assert_eq!(irq_of_queue(interrupts, &[27], 0), Some(27));
        assert_eq!(irq_of_queue(interrupts, &[28], 12), Some(28));
        assert_eq!(irq_of_queue(interrupts, &[28], 2), None);
        assert_eq!(irq_of_queue(interrupts, &[], 0), None);
    }

    #[test]
    fn a_worker_runs_beside_the_interrupt_unless_it_polls() {
        let all = [0, 1, 2, 3];
        assert_eq!(choose(&all, &[2, 3], Some(2), 0, false), Some(3));
        assert_eq!(choose(&all, &[2, 3], Some(2), 0, true), Some(2));
        assert_eq!(choose(&all, &[], None, 5, false), Some(1));
        assert_eq!(choose(&[2], &[2], Some(2), 0, false), Some(2), "better there than nowhere");
        assert_eq!(choose(&[1], &[2, 3], None, 0, false), Some(1), "the process may not run near");
        assert_eq!(choose(&[], &[], None, 0, false), None);
    }

    #[test]
    fn each_worker_has_a_cpu_when_there_are_just_so_many() {
        let cpus = sys::allowed_cpus();
        assert_eq!(cpu_each(cpus.len()), Some(cpus.clone()));
        assert_eq!(cpu_each(cpus.len() + 1), None);
        assert_eq!(cpu_each(cpus.len() - 1), None);
    }

    #[test]
    fn a_thread_can_be_pinned() {
        std::thread::spawn(|| {
            let cpu = cpu_for_queue("lo", 0, false).unwrap();
            pin_to_cpu(cpu).unwrap();
            assert_eq!(sys::allowed_cpus(), [cpu]);
            assert!(pin_to_cpu(1 << 20).is_err());
        })
        .join()
        .unwrap();
    }
}
