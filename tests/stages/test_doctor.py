"""What the doctor says of nodes that are not as they should be."""

import copy

import pytest
import torch

from milco.stages import doctor


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "SLURMD_NODENAME": "n1"}.items():
        monkeypatch.setenv(name, value)
    for name in doctor.INTERFACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def two_nodes() -> list[dict]:
    one = doctor.facts(0)
    return [one, {**copy.deepcopy(one), "node": "n2", "rank": 1}]


def test_a_node_without_gpus_that_wants_none_is_in_order():
    assert doctor.facts(0)["complaints"] == []


def test_a_torch_without_cuda_is_named_where_gpus_are_wanted(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    (complaint,) = doctor.facts(8)["complaints"]
    assert f"torch {torch.__version__} is built for CPUs only" in complaint


def test_a_driver_that_shows_no_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (complaint,) = doctor.facts(8)["complaints"]
    assert "sees no device (CUDA_VISIBLE_DEVICES=)" in complaint and "CUDA 13.0" in complaint


def test_a_missing_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    (complaint,) = doctor.complaints_of_process(4)
    assert complaint == "4 GPUs are wanted, 3 are here (CUDA_VISIBLE_DEVICES=0,1,2)"


@pytest.mark.parametrize("value", ["eth9", "=eth9", "eth9,lo", "^eth9"])
def test_an_interface_that_does_not_exist_is_named_with_those_that_do(monkeypatch, value):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", value)
    found = doctor.wrong_interfaces()
    if value.startswith("^"):  # to be left out, so that it need not exist
        assert found == []
    else:
        assert "there is no such interface (there are: " in found[0] and "lo" in found[0]


def test_the_start_of_a_name_is_enough_for_nccl(monkeypatch):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "l")
    assert doctor.wrong_interfaces() == []


def test_nodes_that_agree_have_nothing_to_say():
    assert doctor.judge(two_nodes()) == []


def test_a_package_that_differs_between_nodes_is_named():
    nodes = two_nodes()
    nodes[1]["versions"]["transformers"] = "4.0"
    (complaint,) = doctor.judge(nodes)
    assert complaint.startswith("transformers differs between nodes: n1 5.") and ", n2 4.0;" in complaint


def test_a_complaint_of_all_processes_is_said_once_for_each_node():
    nodes = [*two_nodes(), *two_nodes()]
    for node in nodes:
        node["complaints"] = ["is cold"]
    assert doctor.judge(nodes) == ["n1: is cold", "n2: is cold"]


def test_different_numbers_of_processes_are_named():
    nodes = two_nodes()
    nodes[1]["processes"] = 7
    assert doctor.judge(nodes) == ["the nodes have different numbers of processes: {'n1': 1, 'n2': 7}"]


def test_the_table_has_a_line_for_each_process():
    lines = doctor.table(two_nodes()).splitlines()
    assert len(lines) == 3 and torch.__version__ in lines[1] and "n2" in lines[2]
