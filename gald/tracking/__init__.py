"""The results as MLflow shows them: a view that is rebuilt from the files, and that nothing reads back.

Each thing in the store bears two tags of ours: who it is (``gald.id``), which is searched for before anything is made,
and which files it tells of (``gald.state``), set last. What is there and up to date is left alone; what was told of
other files, or only half, is replaced. So `track` may be called as often as one likes and never makes a duplicate.

A training is shown while it runs by `follow`, a process of its own. What that began carries ``gald.live`` and no
``gald.state``; `track` completes it in place, so that a run is one entry from its first interval to its scores.
"""

from gald.tracking._items import STEPS, Item, items
from gald.tracking._live import follow
from gald.tracking._store import store_uri
from gald.tracking._track import track

__all__ = ["STEPS", "Item", "follow", "items", "store_uri", "track"]
