//! What a cgroup's path says of a process: its container and its pod.
//!
//! Runtimes put every container into a cgroup that is named after it; how, depends on the runtime and on who manages cgroups
//! (systemd or the runtime itself). The innermost container of a path counts: Docker in a pod, or a cluster inside Docker.

use std::sync::Arc;

/// Where a process runs, by its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Id of the container, as its runtime prints it.
    pub container_id: Option<Arc<str>>,
    /// Uid of the pod, with dashes; of static pods, the hash of their configuration.
    pub pod_uid: Option<Arc<str>>,
}

impl Place {
    /// From the lines of `/proc/PID/cgroup`. With cgroup v1 there is one for each controller, and not all need to be inside the
    /// container's cgroup.
    pub fn from_lines(lines: &str) -> Self {
        let paths = || lines.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        Self {
            container_id: paths().find_map(container_id).map(Arc::from),
            pod_uid: paths().find_map(pod_uid).map(Arc::from),
        }
    }
}

/// Parts of a path, innermost first. containerd under systemd can write `SLICE:PREFIX:ID` in one.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.rsplit('/').flat_map(|name| name.rsplit(':')).map(|name| {
        [".scope", ".slice", ".service"].iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name)
    })
}

fn container_id(path: &str) -> Option<&str> {
    parts(path).find_map(|name| {
        // Amazon ECS: 32 digits, a dash, and a decimal number.
        if let Some((task, number)) = name.split_once('-')
            && is_hex(task, 32)
            && (1..=20).contains(&number.len())
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Some(name);
        }
        let (runtime, id) = name.rsplit_once('-').unwrap_or_default();
        // The helper that watches a container is not in it.
        let is_monitor = runtime.ends_with("conmon");
        [id, name].into_iter().find(|id| is_hex(id, 64) && !is_monitor)
    })
}

fn pod_uid(path: &str) -> Option<String> {
    parts(path).find_map(|name| {
        // `podUID` by kubelet itself; `kubepods-burstable-podUID` under systemd, with underscores for dashes.
        let uid = name.strip_prefix("pod").or_else(|| name.rsplit_once("-pod").map(|(_, uid)| uid))?;
        let uid = uid.replace('_', "-");
        (is_uuid(&uid) || is_hex(&uid, 32)).then_some(uid)
    })
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    text.split('-').count() == groups.len()
        && text.split('-').zip(groups).all(|(group, digits)| is_hex(group, digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "4b7a6f2dc1e84f0d9b1c3a5e7f90812a3b4c5d6e7f8091a2b3c4d5e6f708192a";
    const OTHER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const UID: &str = "c7a1f3de-6a1b-4a55-9c1f-0b8e4d2f9a10";
    const UID_: &str = "c7a1f3de_6a1b_4a55_9c1f_0b8e4d2f9a10";
    const STATIC: &str = "8dbc4f9bdb1a16f3c1c1b43e6e2d1d25";

    /// Container and pod, as in a path in which `ID`, `OTHER`, `UID`, `UID_` and `STATIC` stand for the ids above.
    fn place(lines: &str) -> (Option<String>, Option<String>) {
        let lines = lines
            .replace("OTHER", OTHER)
            .replace("STATIC", STATIC)
            .replace("UID_", UID_)
            .replace("UID", UID)
            .replace("ID", ID);
        let place = Place::from_lines(&lines);
        (place.container_id.map(|id| id.to_string()), place.pod_uid.map(|uid| uid.to_string()))
    }

    fn is(container: &str, pod: &str) -> (Option<String>, Option<String>) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        (some(container), some(pod))
    }

    #[test]
    fn docker() {
        for lines in [
            "0::/docker/ID",
            "0::/system.slice/docker-ID.scope",
            "12:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "0::/../docker-ID.scope",
            "0::/docker/ID/system.slice/nginx.service",
            "0::/system.slice/docker-ID.scope/init",
        ] {
            assert_eq!(place(lines), is(ID, ""), "{lines}");
        }
    }

    #[test]
    fn kubernetes_with_cgroups_of_its_own() {
        for lines in [
            "0::/kubepods/burstable/podUID/ID",
            "0::/kubepods/podUID/ID",
            "11:memory:/kubepods/besteffort/podUID/ID\n10:cpuset:/kubepods/besteffort/podUID/ID",
            "0::/kubepods/besteffort/podUID/crio-ID",
            "0::/k8s.io/kubepods/burstable/podUID/ID",
            "0::/../../podUID/ID",
        ] {
            assert_eq!(place(lines), is(ID, UID), "{lines}");
        }
    }

    #[test]
    fn kubernetes_under_systemd() {
        for lines in [
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
            "0::/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/docker-ID.scope",
            "0::/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
            "1:name=systemd:/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope\n0::/",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/crio-ID.scope/container",
        ] {
            assert_eq!(place(lines), is(ID, UID), "{lines}");
        }
    }

    #[test]
    fn static_pods() {
        let path =
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/crio-ID.scope";
        assert_eq!(place(path), is(ID, STATIC));
        assert_eq!(place("0::/kubepods/burstable/podSTATIC/ID"), is(ID, STATIC));
    }

    #[test]
    fn a_cluster_in_docker_and_docker_in_a_cluster() {
        let kind = "0::/docker/OTHER/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
            kubelet-kubepods-burstable-podUID_.slice/cri-containerd-ID.scope";
        assert_eq!(place(kind), is(ID, UID));
        assert_eq!(place("0::/kubepods/burstable/podUID/OTHER/docker/ID"), is(ID, UID));
        assert_eq!(place("0::/docker/OTHER/kubepods/podUID/ID"), is(ID, UID));
    }

    #[test]
    fn podman_and_others() {
        for lines in [
            "0::/machine.slice/libpod-ID.scope",
            "0::/machine.slice/libpod-ID.scope/container",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "0::/libpod_parent/libpod-ID",
            "0::/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope",
            "0::/default/ID",
            "0::/system.slice/nerdctl-ID.scope",
            "0::/ecs/STATIC/ID",
            "0::/actions_job/ID",
        ] {
            assert_eq!(place(lines), is(ID, ""), "{lines}");
        }
        let fargate = format!("{STATIC}-1234567890");
        assert_eq!(place("0::/ecs/STATIC/STATIC-1234567890"), is(&fargate, ""));
    }

    #[test]
    fn no_container() {
        for lines in [
            "",
            "0::/",
            "0::/init.scope",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/system.slice/nginx.service",
            "0::/machine.slice/libpod-conmon-ID.scope",
            "0::/system.slice/crio-conmon-ID.scope",
            "0::/kubepods.slice/kubelet.service",
            "0::/podman/podcast",
            "4:memory:/process_api/801ca4a87ab13fc9401eaab89b30b6c9",
            "no line of this file",
        ] {
            assert_eq!(place(lines), is("", ""), "{lines}");
        }
        let sandbox_only = "0::/kubepods/burstable/podUID";
        assert_eq!(place(sandbox_only), is("", UID));
    }

    proptest! {
        #[test]
        fn any_text_is_read(lines in "[-a-f0-9:/._pods\n]{0,300}") {
            let place = Place::from_lines(&lines);
            prop_assert!(place.container_id.is_none_or(|id| id.len() >= 34 && lines.contains(&*id)));
            prop_assert!(place.pod_uid.is_none_or(|uid| uid.len() == 32 || uid.len() == 36));
        }
    }
}
