"""How hosts are reached: which endpoints serve a repository, with which certificates, through which proxy."""
