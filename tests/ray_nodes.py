"""A Ray cluster of two nodes with one CPU each, on loopback, for the tests of scale.

python tests/ray_nodes.py

Prints its address. A line `kill` in its input kills the second node; the end of the input ends all.
"""

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray's switch for clusters of one machine: without it the ports would be on its public address.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        second = cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        print(cluster.address, flush=True)
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(second, allow_graceful=False)
                print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
