"""From a checkpoint to verified artifacts: the only room that knows every part, and the only one that knows the models.

The command line imports it when it starts, so what is slow to import is imported where it is used.
"""

from exporter.pipeline.cache import FOLDER as CACHE_FOLDER
from exporter.pipeline.check import CheckRequest, check, lock_of
from exporter.pipeline.compare import compare
from exporter.pipeline.compute import compute
from exporter.pipeline.export import export
from exporter.pipeline.fleet import fleet
from exporter.pipeline.fleet_plan import FleetRequest
from exporter.pipeline.importing import ImportRequest, import_weights, origin_names
from exporter.pipeline.listing import Listing, doctor, listing, model_names, profile_names, program_names
from exporter.pipeline.locating import ExplainRequest, explain
from exporter.pipeline.opening import read_manifest
from exporter.pipeline.packaging import PackageRequest, Packed, make_package, take_package
from exporter.pipeline.parity import parity, parity_of_all
from exporter.pipeline.passes import passes
from exporter.pipeline.predicting import Predicting, PredictRequest, predict_latency
from exporter.pipeline.profile import MOST_ITERATIONS, ProfileRequest, profile, profile_by
from exporter.pipeline.rank import RankRequest, rank
from exporter.pipeline.reach import NAMED as NAMED_CONNECTIONS
from exporter.pipeline.reach import clean_device, install_browser, install_emulator, remove_browser, remove_emulator
from exporter.pipeline.reporting import ReportRequest, report_on
from exporter.pipeline.request import Embeddings, ExportRequest, GivenModule, ProgramChoice, SavedProgram
from exporter.pipeline.run import run_package
from exporter.pipeline.serve import ServeRequest, serve
from exporter.pipeline.starting import start_config
from exporter.pipeline.swap import swap

__all__ = [
    "CACHE_FOLDER",
    "MOST_ITERATIONS",
    "NAMED_CONNECTIONS",
    "CheckRequest",
    "Embeddings",
    "ExplainRequest",
    "ExportRequest",
    "FleetRequest",
    "GivenModule",
    "ImportRequest",
    "Listing",
    "PackageRequest",
    "Packed",
    "PredictRequest",
    "Predicting",
    "ProfileRequest",
    "ProgramChoice",
    "RankRequest",
    "ReportRequest",
    "SavedProgram",
    "ServeRequest",
    "check",
    "clean_device",
    "compare",
    "compute",
    "doctor",
    "explain",
    "export",
    "fleet",
    "import_weights",
    "install_browser",
    "install_emulator",
    "listing",
    "lock_of",
    "make_package",
    "model_names",
    "origin_names",
    "parity",
    "parity_of_all",
    "passes",
    "predict_latency",
    "profile",
    "profile_by",
    "profile_names",
    "program_names",
    "rank",
    "read_manifest",
    "remove_browser",
    "remove_emulator",
    "report_on",
    "run_package",
    "serve",
    "start_config",
    "swap",
    "take_package",
]
