from clipcov_assets.core import METHODS, Pool


def test_the_whole_pool_comes_in_order_of_uid_without_gains() -> None:
    ranking = METHODS["full"](Pool(uid=["b", "c", "a"]), 3)
    assert ranking.order.tolist() == [2, 0, 1]
    assert ranking.gains.tolist() == [0, 0, 0]
