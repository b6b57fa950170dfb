"""Wire: the messages that etcd understands, as one table of fields.

A phrase book. Only the phrases we use are in it, written down from etcd's published protocol, so that no
generated file ties us to one release of anything. The book is kept in a pool of its own: another etcd client
in the same process may have its own.

Source: etcd's rpc.proto, kv.proto and auth.proto, versions 3.4 to 3.6.
Departure: enums are read as the integers they travel as; fields that nobody here reads are left out.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TYPES = {"i64": 3, "u64": 4, "i32": 5, "bool": 8, "str": 9, "bytes": 12}
_MESSAGE, _ONE, _MANY = 11, 1, 3

# message -> "field=number:type", `*` for many of them; a type not in _TYPES is a message of this table.
TABLE: dict[str, str] = {
    "KeyValue": "key=1:bytes create_revision=2:i64 mod_revision=3:i64 version=4:i64 value=5:bytes "
    "lease=6:i64",
    "Event": "type=1:i32 kv=2:KeyValue prev_kv=3:KeyValue",
    "Header": "cluster_id=1:u64 member_id=2:u64 revision=3:i64 raft_term=4:u64",
    "RangeRequest": "key=1:bytes range_end=2:bytes limit=3:i64 revision=4:i64 serializable=7:bool"
    " keys_only=8:bool count_only=9:bool",
    "RangeResponse": "header=1:Header kvs=2:*KeyValue more=3:bool count=4:i64",
    "PutRequest": "key=1:bytes value=2:bytes lease=3:i64 prev_kv=4:bool",
    "PutResponse": "header=1:Header prev_kv=2:KeyValue",
    "DeleteRangeRequest": "key=1:bytes range_end=2:bytes prev_kv=3:bool",
    "DeleteRangeResponse": "header=1:Header deleted=2:i64 prev_kvs=3:*KeyValue",
    "RequestOp": "request_range=1:RangeRequest request_put=2:PutRequest "
    "request_delete_range=3:DeleteRangeRequest",
    "ResponseOp": "response_range=1:RangeResponse response_put=2:PutResponse"
    " response_delete_range=3:DeleteRangeResponse",
    "Compare": "result=1:i32 target=2:i32 key=3:bytes create_revision=5:i64 mod_revision=6:i64 value=7:bytes",
    "TxnRequest": "compare=1:*Compare success=2:*RequestOp failure=3:*RequestOp",
    "TxnResponse": "header=1:Header succeeded=2:bool responses=3:*ResponseOp",
    "WatchCreateRequest": "key=1:bytes range_end=2:bytes start_revision=3:i64 progress_notify=4:bool"
    " prev_kv=6:bool watch_id=7:i64 fragment=8:bool",
    "WatchCancelRequest": "watch_id=1:i64",
    "WatchProgressRequest": "",
    "WatchRequest": "create_request=1:WatchCreateRequest cancel_request=2:WatchCancelRequest"
    " progress_request=3:WatchProgressRequest",
    "WatchResponse": "header=1:Header watch_id=2:i64 created=3:bool canceled=4:bool compact_revision=5:i64"
    " cancel_reason=6:str fragment=7:bool events=11:*Event",
    "LeaseGrantRequest": "TTL=1:i64 ID=2:i64",
    "LeaseGrantResponse": "header=1:Header ID=2:i64 TTL=3:i64 error=4:str",
    "LeaseRevokeRequest": "ID=1:i64",
    "LeaseRevokeResponse": "header=1:Header",
    "LeaseKeepAliveRequest": "ID=1:i64",
    "LeaseKeepAliveResponse": "header=1:Header ID=2:i64 TTL=3:i64",
    "LeaseTimeToLiveRequest": "ID=1:i64 keys=2:bool",
    "LeaseTimeToLiveResponse": "header=1:Header ID=2:i64 TTL=3:i64 grantedTTL=4:i64",
    "AuthenticateRequest": "name=1:str password=2:str",
    "AuthenticateResponse": "header=1:Header token=2:str",
    "StatusRequest": "",
    "StatusResponse": "header=1:Header version=2:str db_size=3:i64 leader=4:u64 raft_index=5:u64 "
    "raft_term=6:u64"
    " raft_applied_index=7:u64 errors=8:*str db_size_in_use=9:i64 is_learner=10:bool",
    "AlarmRequest": "action=1:i32 member_id=2:u64 alarm=3:i32",
    "AlarmMember": "member_id=1:u64 alarm=2:i32",
    "AlarmResponse": "header=1:Header alarms=2:*AlarmMember",
    "Member": "ID=1:u64 name=2:str peer_urls=3:*str client_urls=4:*str is_learner=5:bool",
    "MemberListRequest": "",
    "MemberListResponse": "header=1:Header members=2:*Member",
}

_PACKAGE = "atoll.etcd"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="atoll/etcd.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in TABLE.items():
        message = file.message_type.add(name=name)
        for one in fields.split():
            field, _, rest = one.partition("=")
            number, _, kind = rest.partition(":")
            many, kind = kind.startswith("*"), kind.removeprefix("*")
            entry = message.field.add(name=field, number=int(number), label=_MANY if many else _ONE)
            if kind in _TYPES:
                entry.type = _TYPES[kind]
            else:
                entry.type, entry.type_name = _MESSAGE, f".{_PACKAGE}.{kind}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_file().SerializeToString())
MESSAGES: dict[str, Any] = {
    name: message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in TABLE
}

_KV, _LEASE, _MAINTENANCE = "/etcdserverpb.KV/", "/etcdserverpb.Lease/", "/etcdserverpb.Maintenance/"
PATHS: dict[str, str] = {
    "Range": f"{_KV}Range",
    "Txn": f"{_KV}Txn",
    "LeaseGrant": f"{_LEASE}LeaseGrant",
    "LeaseRevoke": f"{_LEASE}LeaseRevoke",
    "LeaseTimeToLive": f"{_LEASE}LeaseTimeToLive",
    "LeaseKeepAlive": f"{_LEASE}LeaseKeepAlive",
    "Watch": "/etcdserverpb.Watch/Watch",
    "Authenticate": "/etcdserverpb.Auth/Authenticate",
    "Status": f"{_MAINTENANCE}Status",
    "Alarm": f"{_MAINTENANCE}Alarm",
    "MemberList": "/etcdserverpb.Cluster/MemberList",
}
"""What is asked of which service; the question is the message `<name>Request`, so is the answer."""
ANSWERS: dict[str, Any] = {name: MESSAGES[f"{name}Response"].FromString for name in PATHS}

EQUAL, CREATE, MOD, VALUE = 0, 1, 2, 3
"""Of a comparison: its only result used here, and its targets."""
PUT, DELETED = 0, 1
"""Of an event."""
NOSPACE, CORRUPT = 1, 2
"""Of an alarm."""


def message(name: str, **fields: Any) -> bytes:
    """The message `name`, as it travels."""
    return MESSAGES[name](**fields).SerializeToString()  # type: ignore[no-any-return]
