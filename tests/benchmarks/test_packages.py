"""The benchmark of packages still runs."""

from commands import load_benchmark


def test_packages_beside_the_floor_and_what_they_are_kept_in(small_ofa, tmp_path):
    benchmark = load_benchmark("packages")
    pace = benchmark.measure_pace(small_ofa, users=130, rounds=1, folder=tmp_path)
    assert all(seconds > 0 and times > 0 for seconds, times, _ in pace.values())
    sizes = [size for way, (*_, size) in pace.items() if way.startswith("packages")]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0
    places = benchmark.measure_places(small_ofa, users=130, folder=tmp_path)
    assert len(places) == 3 and all(rate > 0 and taken > 0 for rate, taken in places.values())
