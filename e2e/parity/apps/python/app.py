# Written in Python: the library runs in a Node process of its own.
import os
from pathlib import Path

from aws_cdk import App, CfnOutput, CfnResource, Environment, Stack, Tags
from aws_cdk.aws_s3_assets import Asset
from aws_cdk.aws_sns import Topic
from aws_cdk.aws_ssm import StringParameter

variant = Path("variant").read_text().strip()
app = App()
env = Environment(account=os.environ["CDK_DEFAULT_ACCOUNT"], region=os.environ["CDK_DEFAULT_REGION"])

topics = Stack(app, "python-topics", env=env, description="Grüße from Python")
topic = Topic(topics, "Topic", display_name=variant)
Tags.of(topics).add("language", "python")

stack = Stack(app, "python", env=env)
asset = Asset(stack, "Data", path="data")
StringParameter(stack, "Key", string_value=asset.s3_object_key)
StringParameter(stack, "Topic", string_value=topic.topic_arn)
parameter = StringParameter(stack, "Variant", string_value="two" if variant == "bad" else variant)
CfnOutput(stack, "VariantName", value=parameter.parameter_name)
if variant == "bad":
    bad = CfnResource(stack, "Bad", type="AWS::SSM::Parameter", properties={"Type": "Bogus", "Value": "x"})
    bad.node.add_dependency(parameter)

app.synth()
