"""Calls Likemind without generated code: learns its services and messages from the server by reflection.

    python3 recommend.py ADDRESS USER

Prints the services, the answer of Recommend and a refusal as JSON. Needs grpcio and grpcio-reflection.
"""

import json
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def call(channel, pool, service_name, method_name, **fields):
    method = pool.FindServiceByName(service_name).FindMethodByName(method_name)
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    rpc = channel.unary_unary(
        f"/{service_name}/{method_name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    return json_format.MessageToDict(rpc(request(**fields), timeout=30), preserving_proto_field_name=True)


def main():
    address, user = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        service = "likemind.v1.RecommendationService"
        output = {
            "services": sorted(database.get_services()),
            "recommended": call(channel, pool, service, "Recommend", user_id=user, limit=3, explain=True),
        }
        # The details of an error are sent in a header.
        try:
            call(channel, pool, service, "PredictRatings", user_id=user, item_ids=["\n"] * 1000)
        except grpc.RpcError as error:
            output["refused"] = {"code": error.code().name, "details": error.details()}
    json.dump(output, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
