"""The file for ms-swift's `--external_plugins`; see `costbank.trainers.ms_swift`.

ms-swift puts the folder of this file first on the import path. So it is alone here: a `lightning.py` next to it would
be imported in place of Lightning.
"""

from costbank.trainers.ms_swift import register

register()
