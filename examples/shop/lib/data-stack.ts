import { CfnOutput, Duration, Stack, StackProps } from 'aws-cdk-lib';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { Construct } from 'constructs';

export interface DataStackProps extends StackProps {
  /** Name of the environment, such as `dev`. */
  readonly environment: string;
}

/** What the shop remembers. */
export class DataStack extends Stack {
  /** Orders that wait to be shipped. */
  public readonly orders: Queue;

  constructor(scope: Construct, id: string, props: DataStackProps) {
    super(scope, id, props);
    this.orders = new Queue(this, 'Orders', { retentionPeriod: Duration.days(4) });
    new StringParameter(this, 'Currency', {
      parameterName: `/shop/${props.environment}/currency`,
      stringValue: 'EUR',
    });
    new CfnOutput(this, 'OrdersUrl', { value: this.orders.queueUrl });
  }
}
