"""The programs of attention-tokens over many machines, with Dask.

``count`` counts a file of prompts, ``concordance`` writes a concordance for each of many files, ``patch`` runs a patching sweep
over a file of prompt pairs. All three are ``run_shards`` with other functions: it runs shards as tasks, with retries, and merges
their results. The guide is docs/cluster.md of attention-tokens.
"""

from .concordance import concordance
from .count import count
from .errors import ClusterError
from .patch import patch
from .run import Cluster, Summary, run_shards
from .schedule import Options
from .version import __version__

__all__ = ["Cluster", "ClusterError", "Options", "Summary", "__version__", "concordance", "count", "patch", "run_shards"]
