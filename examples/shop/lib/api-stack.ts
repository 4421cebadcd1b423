import * as path from 'node:path';
import { CfnOutput, Stack, StackProps } from 'aws-cdk-lib';
import { Asset } from 'aws-cdk-lib/aws-s3-assets';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { Construct } from 'constructs';
import { greeting } from './greeting';

export interface ApiStackProps extends StackProps {
  /** Name of the environment, such as `dev`. */
  readonly environment: string;
  /** Queue of the data stack that new orders go to. */
  readonly orders: Queue;
}

/** What the shop shows. */
export class ApiStack extends Stack {
  constructor(scope: Construct, id: string, props: ApiStackProps) {
    super(scope, id, props);
    const site = new Asset(this, 'Site', { path: path.join(__dirname, '..', '..', 'site') });
    const parameter = new StringParameter(this, 'Greeting', {
      parameterName: `/shop/${props.environment}/greeting`,
      stringValue: greeting,
    });
    new StringParameter(this, 'OrdersArn', {
      parameterName: `/shop/${props.environment}/orders-arn`,
      stringValue: props.orders.queueArn,
    });
    new CfnOutput(this, 'GreetingParameter', { value: parameter.parameterName });
    new CfnOutput(this, 'SiteUrl', { value: site.s3ObjectUrl });
  }
}
